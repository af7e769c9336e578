"""From one supervisor to the next, in the same process: what it needs, over an exec.

The state is JSON in memory without a name; its descriptor is in a variable that is
removed when it was read. What is in it is only ever added to, and its version raised
when an older djasgi could not go on with it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from base64 import b64decode
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from djasgi.errors import UsageError
from djasgi.supervisor.board import Board, memory
from djasgi.supervisor.children import Child

VERSION = 1
VARIABLE = "_DJASGI_HANDOVER"
CHECKING = "check:"

BLOCKED = (
    signal.SIGHUP,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGCHLD,
)


class Inherited:
    """What the supervisor before this one has left."""

    def __init__(self, state: dict[str, Any], *, checking: bool) -> None:
        self.checking = checking
        self.started: float = state["started"]
        self.machine: dict[str, Any] = state["machine"]
        # That of the signals too: what came before the exec may still be in it.
        self.pipes: list[int] = state["pipes"]
        self.board: int = state["board"]
        self.listeners: list[dict[str, Any]] = state["listeners"]
        self.services: dict[str, dict[str, Any]] = state["services"]
        self.terminal: bool = state["terminal"]
        self.reload_began: float = state["reload_began"]
        self.last_reload: dict[str, Any] = state["last_reload"]
        self.keep: dict[str, Any] = state["keep"]
        self._children: list[dict[str, Any]] = state["children"]
        self._preloaders: list[dict[str, Any]] = state["preloaders"]

    @property
    def control(self) -> dict[str, Any] | None:
        """What the control socket has handed over."""
        return self.services.get("Control")

    @property
    def facts(self) -> dict[str, Any]:
        """What `djasgi status` said of the plan before."""
        facts: dict[str, Any] = (self.control or {}).get("facts", {})
        return facts

    @property
    def pid_file(self) -> Path | None:
        """Where the pid file is, if there is one."""
        path = self.services.get("PidFile", {}).get("path")
        return None if path is None else Path(path)

    def children(self, board: Board) -> list[Child]:
        """The workers that live."""
        return [_child(state, board) for state in self._children]

    def preloaders(self) -> list[tuple[Child, socket.socket]]:
        """The processes with code, each with the socket of its commands."""
        return [
            (_child(state, None), socket.socket(fileno=_own(state["commands"])))
            for state in self._preloaders
        ]


def _child(state: dict[str, Any], board: Board | None) -> Child:
    child = Child(state["number"], state["generation"], state["pid"], state["pipe"])
    if child.pipe is not None:
        _own(child.pipe)
    if board is not None and state["slot"] is not None:
        child.slot = board.take(state["slot"])
    child.inbox.rest = b64decode(state["rest"])
    child.started = state["started"]
    return child


def _own(descriptor: int) -> int:
    os.set_inheritable(descriptor, False)
    return descriptor


def inherited() -> Inherited | None:
    """What was handed over to this process, once; None for a first supervisor.

    Raises UsageError when it comes from a djasgi that this one does not understand.
    """
    text = os.environ.pop(VARIABLE, "")
    if not text:
        return None
    checking = text.startswith(CHECKING)
    descriptor = int(text.removeprefix(CHECKING))
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        state = json.load(file)
        if checking:
            # How the supervisor knows that this program takes over at all: one that
            # was read from standard input, or ignores its arguments, would not.
            os.ftruncate(descriptor, 0)
    if state.get("version") != VERSION:
        raise UsageError(
            f"The new djasgi cannot go on with version {state.get('version')} of the "
            "hand-over.",
            hint="Restart it: stop and start instead of a reload.",
        )
    found = Inherited(state, checking=checking)
    if not checking:
        for number in (*found.pipes, found.board):
            _own(number)
    return found


def reexecute(state: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Replace this program by its new self, which gets `state` and `descriptors`.

    Every signal is blocked from here until the new one has its handlers. Raises OSError
    when it cannot be executed: then everything is as it was.
    """
    descriptor = write(state)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    try:
        for number in (descriptor, *descriptors):
            os.set_inheritable(number, True)
        enter_directory()
        environ = os.environ | {VARIABLE: str(descriptor)}
        os.execve(sys.executable, command(), environ)  # noqa: S606  # not a shell
    except OSError:
        for number in descriptors:
            os.set_inheritable(number, False)
        os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise


def write(state: dict[str, Any]) -> int:
    """The descriptor of memory in which `state` is, with its version."""
    descriptor = memory()
    data = memoryview(json.dumps({"version": VERSION, **state}).encode())
    while data:
        data = data[os.write(descriptor, data) :]
    return descriptor


def command() -> list[str]:
    """The command line of this process, its interpreter by its full path."""
    return [sys.executable, *sys.orig_argv[1:]]


def enter_directory() -> None:
    """Enter the working directory anew by its name, of which a link may have moved."""
    if START_DIRECTORY is not None:
        os.chdir(START_DIRECTORY)


def _named_directory() -> str | None:
    """$PWD, if that is a name of the working directory."""
    name = os.environ.get("PWD", "")
    with suppress(OSError):
        if name and Path(name).samefile("."):
            return name
        return str(Path.cwd())
    return name or None


START_DIRECTORY = _named_directory()
