"""What systemd is told: sd_notify(3), and the watchdog of systemd.service(5)."""

from __future__ import annotations

import logging
import os
import selectors
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from djasgi.supervisor import events

if TYPE_CHECKING:
    from djasgi.supervisor.events import Action
    from djasgi.supervisor.master import Supervisor

logger = logging.getLogger("djasgi")

MICROSECONDS = 1_000_000


class Notify:
    """A service of the supervisor; see `djasgi.supervisor.service.Service`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Takes NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID from `environ`."""
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._period: float | None = None
        self._next: float | None = None
        number = environ.get("WATCHDOG_USEC", "")
        for_us = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        if (
            self._address
            and number.isascii()
            and number.isdigit()
            and int(number)
            and for_us
        ):
            # Half of the time, as sd_watchdog_enabled(3) recommends.
            self._period = int(number) / MICROSECONDS / 2
            self._next = monotonic()

    def register(self, selector: selectors.BaseSelector) -> None:
        """It only sends."""

    def tell(self, supervisor: Supervisor, action: Action) -> None:
        match action:
            case events.Announce():
                self.ready(len(supervisor.machine.pool.serving.places))
            case events.Check():
                # What Type=notify-reload wants: the clock of CLOCK_MONOTONIC.
                now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
                self.send("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reloading")
            case events.Reloaded():
                count = len(supervisor.machine.pool.serving.places)
                self.send("READY=1", _serving(count))
            case events.ReloadFailed():
                reason = str(supervisor.reloads.last.get("reason", ""))
                text = " ".join(reason.split())
                self.send("READY=1", f"STATUS=the last reload failed: {text}")
            case events.NotReady():
                self.send("STATUS=stopping soon")
            case events.CloseListeners():
                self.stopping()

    def deadline(self) -> float | None:
        return self._next

    def ready(self, workers: int) -> None:
        """Say that the first generation serves."""
        self.send("READY=1", f"MAINPID={os.getpid()}", _serving(workers))

    def stopping(self) -> None:
        """Say that this is the end."""
        self.send("STOPPING=1", "STATUS=stopping")

    def tick(self, supervisor: Supervisor, now: float) -> None:
        self.beat(now)

    def beat(self, now: float) -> None:
        """Feed the watchdog, if there is one and it is time."""
        if self._period is not None and self._next is not None and now >= self._next:
            self._next = now + self._period
            self.send("WATCHDOG=1")

    def hand_over(self) -> tuple[dict[str, Any], list[int]]:
        return {}, []  # it is all in the environment

    def close(self) -> None:
        """There is nothing to close."""

    def send(self, *lines: str) -> None:
        """Send one message; a manager that is not there changes nothing."""
        if not self._address:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
        ):
            sock.setblocking(False)
            sock.connect(address)
            sock.send("\n".join(lines).encode())


def _serving(workers: int) -> str:
    if workers == 0:
        return "STATUS=serving"
    return f"STATUS=serving with {workers} worker{'' if workers == 1 else 's'}"
