"""The control socket: how `djasgi status`, `reload` and `stop` reach a supervisor.

One unix socket for each supervisor, in a directory of the user's. A request is one line
of JSON, and so is the answer. Who asks is asked of the kernel: the same user, or root.
Never a signal to a number that was read from a file.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import socket
import stat
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any

from djasgi.supervisor.system import process_exists

if TYPE_CHECKING:
    from djasgi.supervisor.events import Action
    from djasgi.supervisor.master import Supervisor

logger = logging.getLogger("djasgi")

DEADLINE = 5.0
"""Seconds for a client to ask and to take its answer."""

MOST_REQUEST = 4096
MOST_CLIENTS = 16
MOST_ANSWER = 4 * 1024 * 1024
AGAIN = 0.05
"""Seconds until somebody is asked again who has closed without an answer."""

SUFFIX = ".sock"


def directories(environ: Mapping[str, str]) -> list[Path]:
    """Where the control sockets of this user can be; the first is where a new one goes.

    Root also looks where those of other users are.
    """
    user = os.getuid()
    temporary = Path(environ.get("TMPDIR") or "/tmp")  # noqa: S108  # owner is checked
    found = [
        *(
            Path(name)
            for name in environ.get("RUNTIME_DIRECTORY", "").split(":")
            if name
        ),
        *(Path(name) / "djasgi" for name in [environ.get("XDG_RUNTIME_DIR")] if name),
        temporary / f"djasgi-{user}",
        Path(f"/run/user/{user}/djasgi"),
        Path("/run/djasgi"),
    ]
    if user == 0:
        found += [*temporary.glob("djasgi-*"), *Path("/run/user").glob("*/djasgi")]
    return [*dict.fromkeys(found)]


@dataclass(slots=True, eq=False)
class Client:
    """A connection to the control socket."""

    sock: socket.socket
    deadline: float
    request: bytes = b""
    asked: bool = False


class Control:
    """A service of the supervisor; see `djasgi.supervisor.service.Service`."""

    def __init__(
        self,
        facts: Mapping[str, Any],
        environ: Mapping[str, str],
        inherited: Mapping[str, Any] | None = None,
    ) -> None:
        """`facts` are added to every status. Serving goes on where there is no socket."""
        self._facts = facts
        self._clients: set[Client] = set()
        self._selector: selectors.BaseSelector | None = None
        self._path = ""
        self._listener: socket.socket | None = None
        if inherited is not None and inherited.get("fd") is not None:
            self._path = inherited["path"]
            self._listener = socket.socket(fileno=inherited["fd"])
            self._listener.set_inheritable(False)
            return
        try:
            self._open(directories(environ)[0])
        except OSError as error:
            logger.info("no control socket: %s", error)

    def _open(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise PermissionError(f"{folder} is not a directory of this user's")
        path = folder / f"{os.getpid()}{SUFFIX}"
        path.unlink(missing_ok=True)  # of a process that had our number
        listener = socket.socket(socket.AF_UNIX)
        try:
            before = os.umask(0o177)
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            listener.listen(MOST_CLIENTS)
        except OSError:
            listener.close()
            raise
        self._listener, self._path = listener, str(path)

    def register(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        if self._listener is not None:
            self._listener.setblocking(False)
            selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        assert self._listener is not None, "it was registered"  # noqa: S101
        assert self._selector is not None, "register() has set it"  # noqa: S101
        with suppress(OSError):
            sock, _ = self._listener.accept()
            if len(self._clients) >= MOST_CLIENTS or not _is_allowed(sock):
                sock.close()
                return
            sock.setblocking(False)
            client = Client(sock, monotonic() + DEADLINE)
            self._clients.add(client)
            self._selector.register(
                sock, selectors.EVENT_READ, lambda: self._read(client)
            )

    def _read(self, client: Client) -> None:
        with suppress(BlockingIOError):
            data = b""
            with suppress(ConnectionError):
                data = client.sock.recv(MOST_REQUEST)
            client.request += data
            line, newline, _ = client.request.partition(b"\n")
            if newline and not client.asked:
                client.request = line
                client.asked = True  # answered in the next tick
            elif not data or len(client.request) > MOST_REQUEST:
                self._drop(client)

    def _drop(self, client: Client) -> None:
        assert self._selector is not None, "register() has set it"  # noqa: S101
        self._clients.discard(client)
        with suppress(KeyError):
            self._selector.unregister(client.sock)
        client.sock.close()

    def tell(self, supervisor: Supervisor, action: Action) -> None:
        """Nothing: whoever wants to know asks."""

    def deadline(self) -> float | None:
        return min((client.deadline for client in self._clients), default=None)

    def tick(self, supervisor: Supervisor, now: float) -> None:
        for client in [*self._clients]:
            if client.asked:
                self._answer_and_drop(client, supervisor)
            elif client.deadline <= now:
                self._drop(client)

    def _answer_and_drop(self, client: Client, supervisor: Supervisor) -> None:
        name, answer = self._answer(client.request, supervisor)
        with suppress(OSError):
            # A unix socket takes as much as this at once; who does not read loses it.
            client.sock.sendall(json.dumps(answer).encode() + b"\n")
        self._drop(client)
        if name == "reload":
            supervisor.request_reload("djasgi reload")
        elif name == "stop":
            supervisor.request_stop("djasgi stop")

    def _answer(
        self, request: bytes, supervisor: Supervisor
    ) -> tuple[str, dict[str, Any]]:
        try:
            name = json.loads(request)["command"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return "", {"error": "not a command"}
        if name not in ("status", "reload", "stop"):
            return "", {"error": "unknown command"}
        return name, {**self._facts, **supervisor.status()}

    def hand_over(self) -> tuple[dict[str, Any], list[int]]:
        if self._listener is None:
            return {"fd": None}, []
        number = self._listener.fileno()
        state = {"fd": number, "path": self._path, "facts": dict(self._facts)}
        return state, [number]

    def close(self) -> None:
        for client in [*self._clients]:
            client.sock.close()
        if self._listener is not None:
            self._listener.close()
            with suppress(OSError):
                Path(self._path).unlink()


def _is_allowed(sock: socket.socket) -> bool:
    """Whether the peer is the same user, or root (SO_PEERCRED in unix(7))."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return True  # the mode of the socket and its directory keep others out
    data = sock.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", data)
    return user in (0, os.getuid())


def ask(path: Path, command: str) -> dict[str, Any] | None:
    """What the supervisor at `path` answers; None when nobody listens there.

    Raises OSError when somebody does and gives no answer.
    """
    request = json.dumps({"command": command}).encode() + b"\n"
    deadline = monotonic() + DEADLINE
    while (data := _exchange(path, request, deadline)) == b"":
        # It was executing itself anew: its next self accepts at the same place.
        Event().wait(AGAIN)
    if data is None:
        return None
    with suppress(ValueError, RecursionError):
        answer = json.loads(data)
        if isinstance(answer, dict):
            return answer
    raise ConnectionError(f"{path} does not answer as djasgi does")


def _exchange(path: Path, request: bytes, deadline: float) -> bytes | None:
    data = b""
    with socket.socket(socket.AF_UNIX) as sock:
        _set_timeout(sock, deadline)
        try:
            sock.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        with suppress(ConnectionError):
            sock.sendall(request)
            while len(data) < MOST_ANSWER and (chunk := sock.recv(65_536)):
                data += chunk
                _set_timeout(sock, deadline)
    return data


def _set_timeout(sock: socket.socket, deadline: float) -> None:
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError("no answer")
    sock.settimeout(left)


def instances(environ: Mapping[str, str]) -> list[tuple[Path, dict[str, Any]]]:
    """The supervisors that run, each with its status, the eldest first.

    What is left of those that were killed is removed.
    """
    found = {}
    for folder in directories(environ):
        for path in _sockets(folder):
            try:
                status = ask(path, "status")
            except OSError:
                continue
            if status is None:
                _remove_stale(path)
            elif isinstance(status.get("pid"), int):
                found[status["pid"]] = (path, status)
    return sorted(found.values(), key=lambda pair: -float(pair[1].get("age", 0)))


def _sockets(folder: Path) -> list[Path]:
    """Those with our names; in a $RUNTIME_DIRECTORY the project has its own as well."""
    with suppress(OSError):
        if stat.S_ISDIR(folder.lstat().st_mode):
            return [path for path in folder.iterdir() if _pid_of(path) is not None]
    return []


def _pid_of(path: Path) -> int | None:
    known = path.suffix == SUFFIX and path.stem.isascii() and path.stem.isdecimal()
    return int(path.stem) if known else None


def _remove_stale(path: Path) -> None:
    with suppress(OSError):
        pid = _pid_of(path)
        mine = path.parent.lstat().st_uid == os.getuid()
        if mine and pid is not None and not process_exists(pid):
            path.unlink(missing_ok=True)
