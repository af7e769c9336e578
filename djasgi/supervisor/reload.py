"""How far a reload has come: checked, executed anew, then one generation for another.

The new generation is started beside the first: when all its workers are ready, it
serves, and those of the first drain. When one of them does not get ready, it is the
second that goes. What is asked for meanwhile is one more reload afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

from djasgi.supervisor.events import (
    Action,
    CancelCheck,
    Cause,
    Check,
    Discard,
    Reexecute,
    Reloaded,
    ReloadFailed,
)
from djasgi.supervisor.pool import Generation, Pool


class Step(Enum):
    """Of a reload; the incoming generation is the part after these."""

    CHECKING = "checking"
    CHECKED = "checked"
    EXECUTING = "executing"


class Reload:
    """The reload of a pool, one at a time."""

    def __init__(
        self, pool: Pool, *, boot_timeout: float, graceful_timeout: float
    ) -> None:
        self.deadline: float | None = None
        """Until when the check may take; None when there is none."""
        self._pool = pool
        self._boot_timeout = boot_timeout
        self._graceful_timeout = graceful_timeout
        self._step: Step | None = None
        self._again = False
        self._closed = False
        self._newest = 1

    @property
    def active(self) -> bool:
        return self._step is not None or self._pool.incoming is not None

    # Before anything of the new code is started

    def request(self, now: float, *, announced: bool = True) -> Iterator[Action]:
        """Begin; or later, during another reload or before the first announcement."""
        if self._closed:
            return
        if self.active or not announced:
            self._again = True
            return
        self._step = Step.CHECKING
        self.deadline = now + self._boot_timeout
        yield Check()

    def request_again(self, now: float) -> Iterator[Action]:
        """Begin, if it was asked for when it could not be."""
        if self._again:
            self._again = False
            yield from self.request(now)

    def checked(self) -> None:
        """The new configuration is sound."""
        if self._step is Step.CHECKING:
            self._step = Step.CHECKED
            self.deadline = None

    def reexecute_when_quiet(self) -> Iterator[Action]:
        """What was asked of somebody and not answered would be lost in the hand-over."""
        if self._step is Step.CHECKED and self._pool.is_quiet():
            self._step = Step.EXECUTING
            yield Reexecute()

    def fail(self, report: ReloadFailed, now: float) -> Iterator[Action]:
        """End it before the incoming generation is there."""
        if self._step is not None:
            self._step = None
            self.deadline = None
            yield report
            yield from self.request_again(now)

    def due(self, now: float) -> Iterator[Action]:
        """End a check that takes too long."""
        if self.deadline is not None and self.deadline <= now:
            yield CancelCheck()
            yield from self.fail(ReloadFailed(Cause.TIMEOUT), now)

    # The incoming generation

    def resume(self, workers: int, now: float) -> Iterator[Action]:
        """Go on after the exec, with so many workers of the new code."""
        self._step = None
        self._newest += 1
        self._pool.incoming = Generation.of(self._newest, workers)
        yield from self._pool.prepare(self._pool.incoming, now)

    def switch(self, now: float) -> Iterator[Action]:
        """The incoming generation serves; the one before drains."""
        pool = self._pool
        assert pool.incoming is not None, "only the incoming generation switches"  # noqa: S101
        before, pool.serving = pool.serving, pool.incoming
        pool.incoming = None
        yield Reloaded()
        yield from self._drain(before, now)
        yield Discard(before.number)
        yield from self.request_again(now)

    def roll_back(self, report: ReloadFailed, now: float) -> Iterator[Action]:
        """The incoming generation goes, and the one that serves goes on."""
        failed = self._pool.incoming
        assert failed is not None, "only the incoming generation goes back"  # noqa: S101
        self._pool.incoming = None
        yield report
        yield Discard(failed.number)
        yield from self._drain(failed, now)
        yield from self.request_again(now)

    def _drain(self, generation: Generation, now: float) -> Iterator[Action]:
        for worker in self._pool.workers_of(generation):
            yield from worker.drain(now, self._graceful_timeout)

    # The end, and the next supervisor

    def close(self) -> Iterator[Action]:
        """The program is about to end: no reload begins any more."""
        self._closed = True
        self.deadline = None
        if self._step is not None:
            self._step = None
            yield CancelCheck()

    def snapshot(self) -> dict[str, Any]:
        """What `restore` needs, as JSON."""
        return {"newest": self._newest, "again": self._again}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Be where the supervisor before this one has executed itself."""
        self._step = Step.EXECUTING
        self._newest = snapshot["newest"]
        self._again = snapshot["again"]
