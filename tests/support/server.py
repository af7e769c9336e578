"""`djasgi serve` as a real process, and requests to it over real sockets."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPResponse
from pathlib import Path
from signal import SIGHUP
from typing import Any, Self

from websockets.sync.client import ClientConnection, connect

from djasgi.supervisor.control import ask, directories
from tests.support.command import DJASGI, PROJECTS, environment
from tests.support.process import TIMEOUT, Process, until

URL = r"https?://(?:\[[^\]]*\]|[^\s:/]+):(\d+)"
FREE_PORT = ("--port", "0")

Answer = tuple[HTTPResponse, str]


def copy_project(name: str, into: Path) -> Path:
    """A copy of a project of tests/projects, as a repository of its own in `into`."""
    root = into / name
    shutil.copytree(PROJECTS / name, root, ignore=shutil.ignore_patterns("__pycache__"))
    (root / ".git").mkdir()
    return root


def send(
    sock: socket.socket, path: str, headers: Mapping[str, str] | None = None
) -> None:
    """Send a GET request for `path`, byte for byte."""
    lines = [f"GET {path} HTTP/1.1"]
    fields = {"Host": "localhost"} | dict(headers or {})
    lines += [f"{name}: {value}" for name, value in fields.items()]
    sock.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))


def answer(sock: socket.socket) -> Answer:
    """Read one response and its body."""
    response = HTTPResponse(sock)
    response.begin()
    return response, response.read().decode()


def tcp(port: int, host: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((host, port), TIMEOUT)


def unix(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(TIMEOUT)
    try:
        sock.connect(str(path))
    except BaseException:
        sock.close()
        raise
    return sock


def refused(port: int, host: str = "127.0.0.1") -> bool:
    """Whether nobody listens there."""
    try:
        tcp(port, host).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        pass  # it was still in the queue of one that has just gone
    return False


@contextmanager
def reserved() -> Iterator[int]:
    """A TCP port that nobody else is given, and that can be listened on."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


class Gate:
    """Holds the requests of the project `probe` that ask for it. A context manager."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(TIMEOUT)
        self._held: list[socket.socket] = []

    @property
    def variables(self) -> dict[str, str]:
        """By these the project finds the gate."""
        return {"GATE": str(self._listener.getsockname()[1])}

    def arrived(self) -> int:
        """Wait for the next request that is held; the process it is in."""
        sock, _ = self._listener.accept()
        sock.settimeout(TIMEOUT)
        self._held.append(sock)
        with sock.makefile() as lines:
            return int(lines.readline())

    def open(self) -> None:
        """Let those go on that have arrived."""
        while self._held:
            self._held.pop().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.open()
        self._listener.close()


class Server(Process):
    """`djasgi serve`, on a free port unless `address` says otherwise."""

    def __init__(
        self,
        cwd: Path,
        *arguments: str,
        address: Sequence[str] = FREE_PORT,
        command: Sequence[str] = DJASGI,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
        columns: int | None = None,
    ) -> None:
        self.cwd = cwd
        self.environ = environment(**(env or {}))
        super().__init__(
            [*prefix, *command, "serve", *arguments, *address],
            cwd=cwd,
            environ=self.environ,
            pass_fds=pass_fds,
            columns=columns,
        )

    @property
    def port(self) -> int:
        """Of the first address, known once it accepts connections."""
        return int(self.wait_for(URL)[1])

    def ready(self) -> Self:
        """Wait until it has said all that it says at its start."""
        self.wait_for(r"ready in \d")
        return self

    def connect(self) -> socket.socket:
        return tcp(self.port)

    def get(self, path: str = "/", headers: Mapping[str, str] | None = None) -> Answer:
        with self.connect() as sock:
            send(sock, path, headers)
            return answer(sock)

    def seen(self, path: str = "/", headers: Mapping[str, str] | None = None) -> Any:
        """What the first view of the project `probe` sees of such a request."""
        response, text = self.get(path, headers)
        assert response.status == 200, text
        return json.loads(text)

    def websocket(self, path: str = "/", **keywords: Any) -> ClientConnection:
        settings = {"compression": None, "proxy": None, "max_size": None} | keywords
        return connect(f"ws://localhost{path}", sock=self.connect(), **settings)

    @property
    def control(self) -> Path:
        """The control socket of its supervisor, which it has above 0 workers."""
        return directories(self.environ)[0] / f"{self.pid}.sock"

    def status(self) -> dict[str, Any]:
        """What the supervisor says of itself, also while it executes itself anew."""
        path = self.control
        answers: list[dict[str, Any]] = []

        def answered() -> bool:
            with suppress(TimeoutError):
                answers.extend(filter(None, [ask(path, "status")]))
            return bool(answers)

        until(answered, f"an answer at {path}\n{self.log}")
        return answers[0]

    def reload(self, *, count: int = 1) -> None:
        """Have it reload, and wait until the reload number `count` has succeeded."""
        self.signal(SIGHUP)
        self.wait_for(r"reloaded in \d", count=count)

    def workers(self) -> list[int]:
        """The processes that serve, besides one that serves without a supervisor."""
        if not self.control.exists():
            return []
        return sorted(worker["pid"] for worker in self.status()["workers"])
