"""What is said, once, when the first workers are ready: what is served, and where."""

from __future__ import annotations

import gc
import ipaddress
import logging
import socket
import time
from typing import Any

from djasgi import output
from djasgi.duty import Duty
from djasgi.supervisor.sockets import Listeners

logger = logging.getLogger("djasgi")


class Announcement:
    """Called with what the last of the first workers told when it was ready."""

    def __init__(
        self, duty: Duty, listeners: Listeners, workers: int, started: float
    ) -> None:
        self.duty = duty
        self.workers = workers
        self.started = started
        # Now: in this process an engine may take the sockets over before it is ready.
        self.addresses = listeners.addresses
        self.exposed = not all(map(_is_loopback, listeners.sockets))

    def __call__(self, facts: dict[str, Any]) -> None:
        from importlib.metadata import version

        seconds = time.monotonic() - self.started
        plan = self.duty.plan
        debug = bool(facts.get("debug"))
        release = version(plan.options.server)
        if self.duty.terminal and plan.options.log_format == "text":
            print(  # noqa: T201  # the panel is not a log line
                output.panel(
                    plan,
                    self.addresses,
                    release,
                    self.workers,
                    debug=debug,
                    exposed=self.exposed,
                    color=self.duty.color,
                ),
                flush=True,
            )
        else:
            logger.info("listening on %s", ", ".join(self.addresses))
            for label, value, origin in output.summary(plan, release, self.workers):
                logger.info("%s: %s (%s)", label, value, origin)
            if debug:
                notice = output.debug_notice(plan, debug=True, exposed=self.exposed)
                logger.warning(" ".join(notice))
        for note in facts.get("notes", ()):
            logger.warning(note)
        logger.info("ready in %.2f s", seconds)
        gc.freeze()
        gc.enable()


def _is_loopback(sock: socket.socket) -> bool:
    if sock.family == socket.AF_UNIX:
        return True
    return ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback
