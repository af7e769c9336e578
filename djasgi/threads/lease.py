"""What one request or websocket connection has of the threads."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from contextvars import ContextVar
from types import GeneratorType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from djasgi.threads.thread import Call, PoolThread

if TYPE_CHECKING:
    from djasgi.threads.pool import Pool

P = ParamSpec("P")
T = TypeVar("T")

current: ContextVar[Lease | None] = ContextVar("djasgi_lease", default=None)
"""The lease of this request."""


def release() -> None:
    """The request's last hop is over: its thread goes back; a later call binds again.

    To be called in the thread at the end of the hop, or in the event loop after it.
    While calls of the request are queued or running it takes effect after them; without
    a lease it does nothing.
    """
    lease = current.get()
    if lease is not None:
        lease.release()


class Lease(Executor):
    """Runs the calls of one request or websocket connection one by one on one thread.

    It is bound to a thread when its first call starts. The lease of a request keeps it
    until the request has ended, that of a websocket connection while it has calls.

    Tasks may outlive their request. On Django their calls get a new thread, made for
    what is left of that request (asgiref: SyncToAsync.__call__); so they do here, and
    it ends with the tasks that have used it.
    """

    # In the class, not for each request: many have no calls at all.
    thread: PoolThread | None = None
    busy = False
    """Whether a call of this lease runs, or waits for a thread."""
    ended = False
    released = False
    rows: weakref.ref[GeneratorType[Any, Any, Any]] | None = None
    calls: deque[Call]
    """Those that wait; only there since the first call."""
    tasks: frozenset[asyncio.Task[Any]] = frozenset()

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.epoch = pool.epoch

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Queue a call. Raises RuntimeError once the pool is closed."""
        future: Future[T] = Future()
        self.pool.submit(self, Call(fn, args, kwargs, future))
        return future

    def begin(self, call: Call) -> None:
        """Queue a call that has its future. Raises RuntimeError as `submit`."""
        self.pool.submit(self, call)

    def release(self) -> None:
        """Give the thread back after the calls so far; a later one binds again."""
        self.pool.release(self)

    def end(self) -> None:
        """The request is over. What still runs, runs on; its thread is free after it."""
        if self.ended:
            return
        self.ended = True
        pool = self.pool
        if self.epoch == pool.epoch:
            pool.leases -= 1
        # In this order: a call that comes just now is settled when it has run.
        if self.thread is not None or self.busy:
            pool.release(self)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the lease; its calls are neither waited for nor cancelled."""
        self.end()


class Current(Executor):
    """Runs each call on the lease of the request that makes it."""

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Queue a call. Raises RuntimeError once the pool is closed."""
        lease = current.get()
        assert lease is not None, "there is no request"  # noqa: S101
        return lease.submit(fn, *args, **kwargs)


def unfinished_rows(call: Call) -> GeneratorType[Any, Any, Any] | None:
    """The suspended generator that a function called through asgiref was given."""
    with suppress(AttributeError, IndexError, TypeError):
        for argument in call.function.args[-1].args:  # type: ignore[attr-defined]
            if isinstance(argument, GeneratorType) and argument.gi_frame is not None:
                return argument
    return None
