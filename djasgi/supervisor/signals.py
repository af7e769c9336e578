"""Signals to the supervisor: what each does, and how they reach the one place to wait."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress

from djasgi.supervisor.worker import nothing

SIGNALS: dict[signal.Signals, str] = {
    signal.SIGTERM: "stop: no new connections, requests in flight finish, then exit 0",
    signal.SIGINT: "the same without waiting for idle connections; a second one stops at "
    "once",
    signal.SIGQUIT: "stop at once",
    signal.SIGHUP: "reload: new code, settings and options, no request lost; when the "
    "terminal is gone, stop; under nohup nothing",
    signal.SIGTTIN: "one worker more, until the next reload",
    signal.SIGTTOU: "one worker fewer, until the next reload",
    signal.SIGUSR1: "nothing but a line that says so",
    signal.SIGUSR2: "write the stacks of all threads of all workers to the log",
}
"""What each signal does; the README's table."""

# Where SIGCHLD was inherited as ignored, no exit status would be left.
HANDLED = (*SIGNALS, signal.SIGCHLD)


def handle(wakeup_write: int) -> None:
    """Have the number of each signal written to this pipe, and nothing else happen."""
    os.set_blocking(wakeup_write, False)
    signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
    for number in HANDLED:
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # nohup
        signal.signal(number, nothing)
    # After an exec they are blocked until here, where nothing can be lost.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def received(wakeup: int) -> Iterator[signal.Signals]:
    """The signals that have come, from the other end of the pipe."""
    with suppress(BlockingIOError):
        for number in os.read(wakeup, 4096):
            yield signal.Signals(number)
