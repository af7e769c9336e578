"""The control socket in one process: a supervisor of a few lines, and real clients."""

from __future__ import annotations

import json
import os
import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from djasgi.supervisor import control
from djasgi.supervisor.control import Control, ask, directories, instances
from djasgi.supervisor.events import Announce
from djasgi.supervisor.master import Supervisor
from djasgi.supervisor.system import process_exists


class Stub:
    """As much of a supervisor as the control socket knows, and its loop."""

    def __init__(self, environ: dict[str, str], inherited: Any = None) -> None:
        self.asked: list[str] = []
        self.selector = selectors.DefaultSelector()
        self.control = Control({"name": "shop"}, environ, inherited)
        self.control.register(self.selector)
        self.now = 0.0

    def status(self) -> dict[str, Any]:
        return {"pid": os.getpid(), "age": 1.0}

    def request_reload(self, origin: str) -> None:
        self.asked.append(f"reload by {origin}")

    def request_stop(self, origin: str) -> None:
        self.asked.append(f"stop by {origin}")

    def turn(self, timeout: float = 0.01) -> None:
        for key, _ in self.selector.select(timeout):
            if key.fd in self.selector.get_map():
                key.data()
        self.control.tick(cast("Supervisor", self), self.now)

    def serve_until(self, thread: threading.Thread) -> None:
        while thread.is_alive():
            self.turn()

    def close(self) -> None:
        self.control.close()
        self.selector.close()


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_RUNTIME_DIR": str(tmp_path)}


@pytest.fixture
def stub(environ: dict[str, str]) -> Iterator[Stub]:
    with closing(Stub(environ)) as stub:
        yield stub


def path_of(stub: Stub) -> Path:
    return Path(stub.control._path)


def answer(stub: Stub, command: str) -> dict[str, Any] | None:
    got: list[dict[str, Any] | None] = []
    thread = threading.Thread(target=lambda: got.append(ask(path_of(stub), command)))
    thread.start()
    stub.serve_until(thread)
    return got[0]


def connected(stub: Stub) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(stub.control._path)
    return client


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        ("status", []),
        ("reload", ["reload by djasgi reload"]),
        ("stop", ["stop by djasgi stop"]),
    ],
)
def test_a_command_is_answered_with_the_status_and_then_done(
    stub: Stub, command: str, asked: list[str]
) -> None:
    assert answer(stub, command) == {"name": "shop", "pid": os.getpid(), "age": 1.0}
    assert stub.asked == asked


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (b"{}", "not a command"),
        (b"[]", "not a command"),
        (b"7", "not a command"),
        (b"", "not a command"),
        (b"status", "not a command"),
        (b"\xff\x00", "not a command"),
        (b"[" * 4000, "not a command"),
        (b'{"command": "kill"}', "unknown command"),
        (b'{"command": ["stop"]}', "unknown command"),
        (b'{"command": null}', "unknown command"),
    ],
)
def test_a_bad_request_is_answered_and_nothing_is_done(
    stub: Stub, request_: bytes, error: str
) -> None:
    with connected(stub) as client:
        client.sendall(request_ + b"\n")
        for _ in range(5):
            stub.turn()

        assert json.loads(client.recv(1000)) == {"error": error}
    assert stub.asked == []
    assert stub.control.deadline() is None


def test_a_request_in_pieces_is_one(stub: Stub) -> None:
    with connected(stub) as client:
        for piece in (b'{"comm', b'and": "stop"', b"}\n"):
            client.sendall(piece)
            stub.turn()
        stub.turn()

        assert json.loads(client.recv(1000))["name"] == "shop"
    assert stub.asked == ["stop by djasgi stop"]


def is_dropped(client: socket.socket) -> bool:
    try:
        return client.recv(100) == b""
    except ConnectionResetError:
        return True


def test_a_client_that_says_nothing_is_dropped_at_its_deadline(stub: Stub) -> None:
    with connected(stub) as client:
        stub.turn()
        deadline = stub.control.deadline()
        assert deadline is not None
        stub.now = deadline - 0.1
        stub.turn()
        assert stub.control.deadline() == deadline
        stub.now = deadline
        stub.turn()

        assert is_dropped(client)
    assert stub.control.deadline() is None


def test_a_client_that_says_too_much_is_dropped(stub: Stub) -> None:
    with connected(stub) as client:
        client.sendall(b"x" * 10_000)
        for _ in range(5):
            stub.turn()

        assert is_dropped(client)


def test_a_client_that_goes_away_is_forgotten(stub: Stub) -> None:
    for said in (b"", b'{"command": ', b'{"command": "status"}\n'):
        with connected(stub) as client:
            client.sendall(said)
            stub.turn()
    for _ in range(5):
        stub.turn()

    assert stub.control.deadline() is None


def test_more_clients_than_are_served_are_turned_away(stub: Stub) -> None:
    clients = []
    for _ in range(control.MOST_CLIENTS + 1):
        clients.append(connected(stub))
        stub.turn()

    assert is_dropped(clients[-1])
    assert len(stub.control._clients) == control.MOST_CLIENTS
    for client in clients:
        client.close()


@pytest.mark.parametrize(
    ("user", "allowed"),
    [(0, True), (os.getuid(), True), (os.getuid() + 1, False)],
    ids=["root", "same", "other"],
)
def test_only_the_same_user_and_root_are_served(
    stub: Stub, user: int, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Peer(socket.socket):
        def getsockopt(self, *args: Any) -> Any:
            return struct.pack("3i", 1, user, 1)

    with connected(stub) as client:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socket", Peer)
            stub.turn()
        client.sendall(b'{"command": "stop"}\n') if allowed else None
        for _ in range(5):
            stub.turn()

        assert is_dropped(client) is not allowed
    assert bool(stub.asked) is allowed


def test_only_the_user_may_enter(stub: Stub) -> None:
    path = path_of(stub)

    assert path.name == f"{os.getpid()}.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_nothing_is_left_at_the_end(environ: dict[str, str]) -> None:
    stub = Stub(environ)
    path = path_of(stub)
    client = connected(stub)
    stub.turn()
    stub.close()

    assert not path.exists()
    assert is_dropped(client)
    client.close()
    assert ask(path, "status") is None


def test_the_next_supervisor_goes_on_with_the_same_socket(
    environ: dict[str, str],
) -> None:
    before = Stub(environ)
    state, descriptors = before.control.hand_over()
    state = json.loads(json.dumps(state))
    assert descriptors == [state["fd"]]
    assert state["facts"] == {"name": "shop"}

    with closing(Stub({}, {**state, "fd": os.dup(state["fd"])})) as after:
        assert answer(after, "status") is not None
        assert not os.get_inheritable(after.control.hand_over()[1][0])
    before.selector.close()
    assert before.control._listener is not None
    before.control._listener.close()


@pytest.mark.parametrize("kind", ["missing", "file", "foreign", "too long"])
def test_without_a_place_for_it_serving_goes_on(
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path
    if kind == "missing":
        folder = tmp_path / "missing"
    elif kind == "file":
        (tmp_path / "djasgi").touch()
    elif kind == "too long":
        folder = tmp_path / ("x" * 120)
        folder.mkdir()
    else:
        (tmp_path / "djasgi").mkdir()
        mine = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    caplog.set_level("INFO", "djasgi")

    stub = Stub({"XDG_RUNTIME_DIR": str(folder)})

    assert "no control socket: " in caplog.text
    assert stub.control.hand_over() == ({"fd": None}, [])
    stub.control.tell(cast("Supervisor", stub), Announce())
    stub.close()


def test_a_directory_behind_a_link_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "djasgi").symlink_to(tmp_path / "elsewhere")

    stub = Stub({"XDG_RUNTIME_DIR": str(tmp_path)})

    assert stub.control.hand_over()[1] == []
    stub.close()


def test_who_closes_without_an_answer_is_asked_again(stub: Stub) -> None:
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(ask(path_of(stub), "status")))
    thread.start()
    listener = stub.control._listener
    assert listener is not None
    listener.setblocking(True)
    listener.accept()[0].close()  # as in the middle of an exec
    listener.setblocking(False)
    stub.serve_until(thread)

    assert got[0]["name"] == "shop"


def other(path: Path, said: bytes) -> tuple[socket.socket, threading.Thread]:
    """Something else that listens, and answers one client."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        client, _ = listener.accept()
        client.recv(1000)
        client.sendall(said)
        client.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return listener, thread


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"[]\n", b"7"])
def test_something_else_that_answers_is_an_error(tmp_path: Path, said: bytes) -> None:
    listener, thread = other(tmp_path / "1.sock", said)

    with pytest.raises(ConnectionError, match="does not answer as djasgi"):
        ask(tmp_path / "1.sock", "status")
    thread.join()
    listener.close()


@pytest.mark.parametrize("said", [b"", b"{"])
def test_who_never_answers_is_an_error(
    tmp_path: Path, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "DEADLINE", 0.2)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "1.sock"))
    listener.listen()

    with pytest.raises(OSError, match=r"time|no answer"):
        ask(tmp_path / "1.sock", "status")
    listener.close()


def dead_pid() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert not process_exists(pid)
    return pid


def test_those_that_run_are_listed_and_what_is_left_of_others_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    environ = {"RUNTIME_DIRECTORY": str(folder)}
    monkeypatch.setattr(control, "directories", lambda environ: [folder])
    stale = folder / f"{dead_pid()}.sock"
    living = folder / "1.sock"
    of_the_project = folder / "web.sock"
    for path in (stale, living, of_the_project):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path))
    with closing(Stub(environ)) as stub:
        got: list[Any] = []
        thread = threading.Thread(target=lambda: got.append(instances(environ)))
        thread.start()
        stub.serve_until(thread)

        assert [(p, s["pid"]) for p, s in got[0]] == [(path_of(stub), os.getpid())]
    assert not stale.exists()
    assert living.exists(), "the process of that number lives"
    assert of_the_project.exists(), "it is none of ours"


def test_a_socket_of_the_project_is_not_even_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "directories", lambda environ: [tmp_path])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "web.sock"))
    listener.listen()
    listener.setblocking(False)

    assert instances({}) == []
    with pytest.raises(BlockingIOError):
        listener.accept()
    listener.close()
    assert (tmp_path / "web.sock").exists()


def test_a_directory_behind_a_link_is_not_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    victim = tmp_path / "elsewhere" / f"{dead_pid()}.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(victim))
    (tmp_path / "djasgi-evil").symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(control, "directories", lambda _: [tmp_path / "djasgi-evil"])

    assert instances({}) == []
    assert victim.exists()


def test_the_first_directory_is_systemds_then_the_users_then_a_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": "/run/user/7"}
    monkeypatch.setattr(os, "getuid", lambda: 7)

    found = [str(path) for path in directories(environ)]

    assert found[:3] == ["/run/a", "/run/b", "/run/user/7/djasgi"]
    assert [path for path in found if path.endswith("/djasgi-7")]
    assert len(found) == len(set(found))
    assert str(directories({})[0]).endswith("/djasgi-7")
