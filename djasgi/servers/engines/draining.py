"""The stop that is the same on every server: finish, then cut what is left."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import sys
import termios
from collections.abc import Iterable
from typing import Any, Protocol

logger = logging.getLogger("djasgi")

CLOSING = 1.0
"""Seconds for a peer to close a connection too, once it has got all there is for it."""

_POLL = 0.02
_TURNS = 10
_AFTER_CANCEL = 1.0
_AFTER_ABORT = 0.3


class Drainable(Protocol):
    """An engine that has stopped accepting.

    Everything is asked again and again, so that what was still on its way counts.
    """

    def close_websockets(self, *, refuse: bool) -> None:
        """Close those that are open with 1012.

        With `refuse`, answer 503 to those that the application has not accepted yet.
        """

    def idle(self) -> Iterable[Any]:
        """The connections that are open without a request, and not being closed."""

    def close(self, connection: Any) -> None:
        """Close one of `idle`."""

    def busy(self) -> bool:
        """Whether a connection is open or an application is running."""

    def cut(self) -> int:
        """Cancel the applications that are running; returns how many."""

    def abort(self) -> None:
        """Drop every connection."""


async def settle() -> None:
    """Let connections that were accepted reach the engine, with what was sent on them.

    asyncio makes their transports some turns of the loop after accepting, and drops
    those that it has not made when its server is closed.
    """
    for _ in range(_TURNS):
        await asyncio.sleep(0)


def unacknowledged(sock: Any) -> int:
    """The bytes that the kernel still has for the peer; 0 where it does not tell."""
    try:
        queued = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except (AttributeError, OSError, ValueError):  # closed: it may be None even
        return 0
    return int.from_bytes(queued, sys.byteorder)


async def drain(
    engine: Drainable, seconds: float, linger: float, patience: float
) -> None:
    """Wait until the engine is no longer busy; after `seconds`, cut what is left.

    A websocket that is asked for is a request like any other: the application has
    `patience` seconds to answer it, and if it accepts, the client is told to go then.

    A connection is closed when it has been idle for `linger` seconds meanwhile: a
    response that had started before did not say that it is the last, so the time counts
    from its end.
    """
    loop = asyncio.get_running_loop()
    winding = _Winding(engine, linger, loop.time() + patience)
    if await _quiet(winding, seconds):
        return
    cancelled = engine.cut()
    if cancelled:
        logger.warning(
            "cancelled %d %s still running after the graceful timeout of %g s",
            cancelled,
            "request" if cancelled == 1 else "requests",
            seconds,
        )
    winding.linger = 0
    if await _quiet(winding, _AFTER_CANCEL):
        return
    winding.aborting = True
    await _quiet(winding, _AFTER_ABORT)


class _Winding:
    """What is done in every round of waiting."""

    def __init__(self, engine: Drainable, linger: float, refuse_at: float) -> None:
        self.engine = engine
        self.linger = linger
        self.refuse_at = refuse_at
        self.aborting = False
        self._idle: dict[Any, float] = {}

    def round(self, now: float) -> None:
        self.engine.close_websockets(refuse=now >= self.refuse_at)
        self._idle = {
            connection: self._idle.get(connection, now)
            for connection in self.engine.idle()
        }
        for connection, since in self._idle.items():
            if now - since >= self.linger:
                self.engine.close(connection)
        if self.aborting:
            self.engine.abort()


async def _quiet(winding: _Winding, seconds: float) -> bool:
    """Whether the engine is quiet within `seconds`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    winding.round(loop.time())
    while winding.engine.busy():
        if loop.time() >= end:
            return False
        await asyncio.sleep(_POLL)
        winding.round(loop.time())
    return True
