"""One thread of a pool, and what it is given to run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from djasgi.threads.database import close_connections

if TYPE_CHECKING:
    from djasgi.threads.lease import Lease
    from djasgi.threads.pool import Pool

IDLE = 30.0
"""Seconds after which a thread that had nothing to do ends."""


class Result(Protocol):
    """What of a future concerns the thread: `concurrent.futures.Future` is one."""

    def set_running_or_notify_cancel(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, error: BaseException, /) -> None: ...
    def cancelled(self) -> bool: ...


class Call:
    """A function that waits to be run, and the future of its result."""

    __slots__ = ("args", "function", "future", "kwargs", "since")

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        future: Result,
    ) -> None:
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.future = future
        self.since = 0.0


class PoolThread(threading.Thread):
    """A thread that runs the calls that are put into its queue; None ends it."""

    def __init__(self, pool: Pool, name: str, *, own: bool) -> None:
        super().__init__(name=name, daemon=False)
        self.pool = pool
        self.epoch = pool.epoch
        # Made for one lease, and outside of the pool's accounts.
        self.own = own
        self.lease: Lease | None = None
        self.queue: SimpleQueue[Call | None] = SimpleQueue()
        # When its last call has ended.
        self.since = 0.0

    def run(self) -> None:
        try:
            self._work()
        finally:
            close_connections()
            self.pool.gone(self)

    def _work(self) -> None:
        while True:
            try:
                call = self.queue.get(timeout=IDLE)
            except Empty:
                if self.pool.expire(self):
                    return
                continue
            if call is None:
                return
            self._run(call)
            # An idle thread keeps nothing of a request alive.
            del call

    def _run(self, call: Call) -> None:
        future = call.future
        if not future.set_running_or_notify_cancel():
            self.pool.finished(self, call)
            return
        try:
            result = call.function(*call.args, **call.kwargs)
        except BaseException as error:  # noqa: BLE001  # it is the caller's
            # The pool first: who is woken up by the result finds the thread free.
            self.pool.finished(self, call)
            future.set_exception(error)
            # The exception refers to this frame: no cycle.
            del future, call
        else:
            self.pool.finished(self, call)
            future.set_result(result)
