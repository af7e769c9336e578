"""What systemd is told, and what it hands over."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import TIMEOUT
from tests.support.server import Server, answer, send, tcp

ACTIVATE = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""
ACTIVATED = (sys.executable, "-c", ACTIVATE)
"""As systemd does it: the process id is known after the fork only."""


class Manager:
    """The notify socket of systemd."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(TIMEOUT)
        self.variables = {"NOTIFY_SOCKET": str(path)}

    def expect(self, first: str) -> dict[str, str]:
        """The next message besides the watchdog's; it begins with `first`."""
        while (message := self._next())[0] == "WATCHDOG=1":
            pass
        assert message[0] == first, message
        return dict(line.split("=", 1) for line in message)

    def watchdog(self) -> None:
        while self._next() != ["WATCHDOG=1"]:
            pass

    def _next(self) -> list[str]:
        return self.socket.recv(4096).decode().splitlines()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    with manager.socket:
        yield manager


def test_it_is_told_of_every_change(server: str, live: Path, manager: Manager) -> None:
    """On a socket that it has opened, over a reload, and one that fails."""
    variables = {**manager.variables, "WATCHDOG_USEC": "400000", "VARIABLE": "x"}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        arguments = ("--server", server, "--workers", "2")
        with Server(
            live,
            *arguments,
            address=(),
            env=variables,
            prefix=(*ACTIVATED, str(listener.fileno())),
            pass_fds=[listener.fileno()],
        ) as process:
            told = manager.expect("READY=1")
            assert told["MAINPID"] == str(process.pid)
            assert told["STATUS"] == "serving with 2 workers"
            manager.watchdog()
            manager.watchdog()

            process.signal(signal.SIGHUP)
            told = manager.expect("RELOADING=1")
            now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            assert 0 < now - int(told["MONOTONIC_USEC"]) < 30_000_000
            manager.watchdog()
            told = manager.expect("READY=1")
            assert told["STATUS"] == "serving with 2 workers"

            (live / "live" / "version.py").write_text("NUMBER =")
            process.signal(signal.SIGHUP)
            manager.expect("RELOADING=1")
            told = manager.expect("READY=1")
            assert "the last reload failed: " in told["STATUS"]
            assert "SyntaxError" in told["STATUS"]
            manager.watchdog()

            with tcp(port) as sock:
                send(sock, "/")
                assert '"version": 1' in answer(sock)[1]
            process.signal(signal.SIGTERM)
            manager.expect("STOPPING=1")
            assert process.wait() == 0
    assert len(process.matches(r"^lifespan.startup")) == 4


def test_the_project_does_not_get_its_variables(live: Path, manager: Manager) -> None:
    with (live / "live" / "settings.py").open("a") as settings:
        settings.write(
            "GREETING = [name for name in os.environ"
            " if name.startswith(('NOTIFY', 'WATCHDOG', 'LISTEN', '_DJASGI'))]\n"
        )
    variables = {**manager.variables, "WATCHDOG_USEC": "60000000"}
    with Server(live, "--workers", "2", env=variables) as process:
        process.ready()
        assert process.seen()["greeting"] == []
        process.reload()
        assert process.seen()["greeting"] == []
        assert process.stop() == 0


def test_the_notify_socket_may_be_abstract(live: Path) -> None:
    name = f"djasgi-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}")
        sock.settimeout(TIMEOUT)
        with Server(live, env={"NOTIFY_SOCKET": f"@{name}"}) as process:
            assert sock.recv(4096).startswith(b"READY=1\n")
            assert process.stop() == 0
