"""When one thread more is of use."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from types import FrameType

from djasgi.threads.thread import PoolThread

TICK = 0.005
"""Seconds that work must have waited before one thread more is considered."""

BUSY = 0.5
"""The share of one core from which on another thread would only fight for it."""

QUIET = 2
"""Ticks in a row that must have been so: one alone is often another process's doing."""

STUCK = 0.05
"""Seconds without progress after which processor time is no argument any more."""

AWAITING = 0.02
"""Seconds without a call after which a request that keeps its thread is awaiting."""

ROUNDS = 20
"""Rounds of the event loop in which the next call of such a request would have come.

The result of a call goes through six or so until the coroutine makes the next one.
"""


class Load:
    """Tells, a tick at a time, whether the process has processor time to spare."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self._clock = clock
        self._cpu = cpu
        self.begin()

    def begin(self) -> None:
        """The first tick is one from now."""
        self.now, self._used = self._clock(), self._cpu()
        self._quiet = 0

    def tick(self) -> bool:
        """Whether the last ticks were quiet."""
        now, used = self._clock(), self._cpu()
        passed = now - self.now
        # A late tick says that the event loop did not get to run, either.
        quiet = used - self._used < BUSY * passed and passed < 2 * TICK
        self._quiet = self._quiet + 1 if quiet else 0
        self.now, self._used = now, used
        return self._quiet >= QUIET


def awaiting(threads: Iterable[PoolThread], now: float) -> int:
    """How many threads are kept by requests that only await.

    `now` must be `ROUNDS` ago to be sure of it.
    """
    return sum(
        thread.lease is not None
        and not thread.lease.busy
        and now - thread.since >= AWAITING
        for thread in threads
    )


def waiting_for_loop(threads: Iterable[PoolThread]) -> int:
    """How many threads run synchronous code that waits for the event loop."""
    frames = sys._current_frames()  # noqa: SLF001  # the only way to see them
    return sum(
        thread.lease is not None
        and thread.lease.busy
        and _waits(frames.get(thread.ident or 0))
        for thread in threads
    )


def _waits(frame: FrameType | None) -> bool:
    """Whether a thread is inside of `async_to_sync`, and has nothing to run there."""
    for _ in range(3):  # below it are those of threading.Condition
        if frame is None:
            return False
        if frame.f_code.co_name == "run_until_future":
            return True
        frame = frame.f_back
    return False
