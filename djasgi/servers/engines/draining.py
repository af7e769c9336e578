"""The stop that is the same on every server: finish, then cut what is left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger("djasgi")

CLOSING = 1.0
"""Seconds for a peer to see that an idle connection is closed; TLS asks its consent."""

_POLL = 0.02
_AFTER_CANCEL = 2.0
_AFTER_ABORT = 0.5


class Drainable(Protocol):
    """An engine that has stopped accepting."""

    def wind_down(self) -> None:
        """Close what is idle; let a running request be the last of its connection.

        Called again and again, so that a connection that was still on its way counts.
        """

    def busy(self) -> bool:
        """Whether a connection is open or an application is running."""

    def cut(self) -> int:
        """Cancel the applications that are running; returns how many."""

    def abort(self) -> None:
        """Drop every connection."""


async def drain(engine: Drainable, seconds: float) -> None:
    """Wait until the engine is no longer busy; after `seconds`, cut what is left."""
    if await _quiet(engine, seconds, engine.wind_down):
        return
    cancelled = engine.cut()
    if cancelled:
        logger.warning(
            "cancelled %d %s still running after the graceful timeout of %g s",
            cancelled,
            "request" if cancelled == 1 else "requests",
            seconds,
        )
    if await _quiet(engine, _AFTER_CANCEL, engine.wind_down):
        return
    engine.abort()
    await _quiet(engine, _AFTER_ABORT, engine.abort)


async def _quiet(engine: Drainable, seconds: float, again: Callable[[], None]) -> bool:
    """Whether the engine is quiet within `seconds`, asked `again` meanwhile."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    again()
    while engine.busy():
        if loop.time() >= end:
            return False
        await asyncio.sleep(_POLL)
        again()
    return True
