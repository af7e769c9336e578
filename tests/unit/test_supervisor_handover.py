from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from djasgi.errors import UsageError
from djasgi.supervisor import handover
from djasgi.supervisor.board import TOTAL, Board
from djasgi.supervisor.children import Child
from djasgi.supervisor.handover import VARIABLE, VERSION, inherited


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board()
    yield board
    os.close(board.descriptor)


def state_of(board: Board, **more: Any) -> dict[str, Any]:
    return {
        "started": 1.5,
        "machine": {"generation": 1},
        "pipes": [],
        "board": board.descriptor,
        "children": [],
        "preloaders": [],
        "listeners": [],
        "services": {},
        "terminal": False,
        "reload_began": 2.5,
        "last_reload": {"number": 3},
        "keep": {"color": True},
        **more,
    }


def test_nothing_is_inherited_by_a_first_supervisor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)

    assert inherited() is None


@pytest.mark.parametrize("checking", [False, True])
def test_everything_arrives_and_the_variable_is_gone(
    board: Board, checking: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = board.take()
    slot[TOTAL] = 7
    read, write = os.pipe()
    ours, theirs = socket.socketpair()
    worker = Child(2, 1, 99, read, slot)
    worker.inbox.feed(b'{"half": \xff')
    preloader = Child(0, 1, 98, write)
    for number in (read, write, ours.fileno()):
        os.set_inheritable(number, True)
    state = state_of(
        board,
        pipes=[read, write],
        children=[worker.hand_over()],
        preloaders=[{**preloader.hand_over(), "commands": ours.fileno()}],
    )
    descriptor = handover.write(state)
    copy = os.dup(descriptor)
    text = f"{handover.CHECKING if checking else ''}{descriptor}"
    monkeypatch.setenv(VARIABLE, text)

    got = inherited()

    assert got is not None
    assert VARIABLE not in os.environ
    assert got.checking is checking
    assert (got.started, got.reload_began, got.terminal) == (1.5, 2.5, False)
    assert (got.keep, got.last_reload) == ({"color": True}, {"number": 3})
    assert (os.fstat(copy).st_size == 0) is checking, "how it shows that it was here"
    os.close(copy)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)
    if checking:
        os.close(read)
        os.close(write)
        ours.close()
        theirs.close()
        return
    (child,) = got.children(board)
    assert (child.number, child.generation, child.pid) == (2, 1, 99)
    assert child.inbox.rest == b'{"half": \xff'
    assert child.started == worker.started
    assert child.slot is not None
    assert child.slot[TOTAL] == 7
    ((loader, commands),) = got.preloaders()
    assert (loader.pid, loader.slot, loader.pipe) == (98, None, write)
    theirs.sendall(b"x")
    assert commands.recv(1) == b"x"
    assert not any(os.get_inheritable(n) for n in (read, write, commands.fileno()))
    ours.detach()
    for closing in (commands, theirs, child, loader):
        closing.close()


def test_another_version_is_refused(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "VERSION", VERSION + 1)
    descriptor = handover.write(state_of(board))
    monkeypatch.undo()
    monkeypatch.setenv(VARIABLE, str(descriptor))

    with pytest.raises(UsageError, match=f"version {VERSION + 1} of the hand-over"):
        inherited()


def mask() -> set[int]:
    return {int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, ())}


def test_an_exec_that_fails_leaves_everything_as_it_was(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def execve(path: str, argv: list[str], env: dict[str, str]) -> None:
        descriptor = int(env[VARIABLE])
        seen.append((path, argv, descriptor, mask(), os.get_inheritable(read)))
        os.lseek(descriptor, 0, os.SEEK_SET)
        seen.append(json.loads(os.read(descriptor, 10_000)))
        raise OSError(errno.E2BIG, "Argument list too long")

    monkeypatch.setattr(os, "execve", execve)
    read, write = os.pipe()
    before = mask()

    with pytest.raises(OSError, match="Argument list"):
        handover.reexecute(state_of(board), [read, write])

    (path, argv, descriptor, blocked, inheritable), state = seen
    assert path == argv[0] == sys.executable
    assert argv[1:] == sys.orig_argv[1:]
    assert blocked >= set(map(int, handover.BLOCKED))
    assert inheritable
    assert state == {"version": VERSION, **state_of(board)}
    assert mask() == before
    assert not os.get_inheritable(read)
    assert VARIABLE not in os.environ
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("pwd", "named"), [("link", True), ("other", False), ("", False)]
)
def test_the_directory_is_entered_by_its_name(
    pwd: str, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("one")
    monkeypatch.chdir(tmp_path / "link")
    monkeypatch.setenv("PWD", str(tmp_path / pwd) if pwd else "")

    name = handover._named_directory()

    assert name == str(tmp_path / ("link" if named else "one"))
