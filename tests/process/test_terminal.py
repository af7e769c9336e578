"""Started at a terminal that then goes away: the window is closed, the line is cut."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from signal import SIGHUP
from typing import Self

import pytest

from tests.support.process import until
from tests.support.server import Server, answer, send, tcp

AT_TERMINAL = """
import fcntl, os, sys, termios
terminal, shared = int(sys.argv[1]), sys.argv[2] == "shared"
fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
for number in range(3) if shared else ():
    os.dup2(terminal, number)
os.close(terminal)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Makes a terminal the one that controls this session, and perhaps all its output."""

SHELL = ("/bin/sh", "-c", '"$@"; exit $?', "sh")
"""Stays as the leader of the session, with the command in the foreground."""


class Terminal:
    """A pseudo-terminal. A context manager."""

    def __enter__(self) -> Self:
        self._ours, self.theirs = os.openpty()
        return self

    def __exit__(self, *exception: object) -> None:
        self.hang_up()

    def hang_up(self) -> None:
        for descriptor in (self.theirs, self._ours):
            with suppress(OSError):
                os.close(descriptor)


class Start:
    """Starts `djasgi serve` in the session of a terminal."""

    def __init__(self, stack: ExitStack, live: Path) -> None:
        self.terminal = stack.enter_context(Terminal())
        self._stack = stack
        self._live = live

    def __call__(
        self, *arguments: str, shared: bool = False, below: Sequence[str] = ()
    ) -> Server:
        descriptor = self.terminal.theirs
        output = "shared" if shared else "apart"
        prefix = (sys.executable, "-c", AT_TERMINAL, str(descriptor), output)
        process = Server(
            self._live,
            *arguments,
            prefix=(*prefix, *below),
            pass_fds=(descriptor,),
        )
        return self._stack.enter_context(process)


@pytest.fixture
def start(live: Path) -> Iterator[Start]:
    with ExitStack() as stack:
        yield Start(stack, live)


@pytest.mark.parametrize("reloaded", [False, True], ids=["started", "reloaded"])
def test_it_stops_as_by_sigterm(server: str, start: Start, reloaded: bool) -> None:
    """The request in flight is answered. As long as the terminal is there, a SIGHUP
    reloads.
    """
    process = start("--server", server, "--workers", "2").ready()
    if reloaded:
        process.reload()
    with process.connect() as sock:
        send(sock, "/slow/1000/")
        until(lambda: active(process) == 1, "the request is there")

        start.terminal.hang_up()

        assert answer(sock)[0].status == 200
    assert process.wait() == 0
    process.wait_for("INFO +stopping: SIGHUP$")
    process.wait_for("INFO +stopped$")
    assert not process.matches("ERROR|Traceback")


def test_it_stops_without_a_place_to_say_so(server: str, start: Start) -> None:
    """All its output went to the terminal."""
    process = start("--server", server, "--workers", "2", shared=True)
    until(process.control.exists, "the control socket is there")
    until(lambda: process.status()["state"] == "serving", "it serves")
    (address,) = process.status()["addresses"]
    with tcp(int(address.rpartition(":")[2])) as sock:
        send(sock, "/slow/1000/")
        until(lambda: active(process) == 1, "the request is there")

        start.terminal.hang_up()

        assert answer(sock)[0].status == 200
    assert process.wait() == 0


def test_the_shell_that_started_it_is_hung_up_as_well(
    server: str, start: Start
) -> None:
    """The shell leads the session and dies; its foreground gets SIGHUP, workers too."""
    process = start("--server", server, "--workers", "2", below=SHELL).ready()

    start.terminal.hang_up()

    assert process.wait() == -SIGHUP, "that is how the shell has ended"
    until(lambda: process.session() == [], "nobody is left")
    process.wait_for("INFO +stopping: SIGHUP$")
    process.wait_for("INFO +stopped$")
    assert not process.matches("ERROR|Traceback|the next one")


def test_without_a_supervisor_it_stops(server: str, start: Start) -> None:
    process = start("--server", server, "--workers", "0").ready()

    start.terminal.hang_up()

    assert process.wait() == 0
    process.wait_for("INFO +stopped$")


def active(process: Server) -> int:
    return sum(worker["active"] for worker in process.status()["workers"])
