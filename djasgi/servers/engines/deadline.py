"""A time limit that is set anew for each request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context


class Deadline:
    """Calls `over` when the seconds last set have passed.

    To make a timer each time, and to cancel it, costs more than one that fires too early
    and looks again.
    """

    def __init__(self, over: Callable[[], None]) -> None:
        self._over = over
        self._loop = asyncio.get_running_loop()
        # Timers copy the context they are made in: that of a request must not live on.
        self._context = copy_context()
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float | None) -> None:
        """Begin anew; None is no limit."""
        if seconds is None:
            self._deadline = None
            return
        deadline = self._deadline = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= deadline:
                return
            self._timer.cancel()
        self._begin(deadline)

    def cancel(self) -> None:
        """Have no limit any more, and no timer."""
        self._deadline = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self, deadline: float) -> None:
        self._timer = self._loop.call_at(deadline, self._look, context=self._context)

    def _look(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self._deadline > self._loop.time():
            self._begin(self._deadline)
        else:
            self._deadline = None
            self._over()
