"""A pool of threads, and the leases that bind requests to them."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any

from djasgi.threads.growth import (
    ROUNDS,
    STUCK,
    TICK,
    Load,
    awaiting,
    waiting_for_loop,
)
from djasgi.threads.lease import Lease, unfinished_rows
from djasgi.threads.thread import Call, PoolThread

logger = logging.getLogger("djasgi")


class Pool:
    """Threads that leases share, at most `maximum` of them running calls at a time.

    A thread whose request keeps it but only awaits does not count. A lease without a
    thread takes the one that became idle last. If there is none its call waits, and a
    thread is made for it when it has waited for a tick in which the process used less
    than half a core: so threads are added when they block, not when they compute. Up to
    `minimum` they are made at once. A thread ends when it had nothing to do for a
    while, and at once when there are more than `maximum` without a request.

    A pool that is not `exclusive` is for what stays open: a lease keeps its thread
    while it has calls queued or running, and while a generator that a call was given is
    unfinished (Django fetches the rows of an asynchronous iteration from one open
    cursor, a chunk a call).
    """

    def __init__(
        self,
        minimum: int,
        maximum: int,
        *,
        name: str = "pool",
        exclusive: bool = True,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        if not 0 <= minimum <= maximum or maximum < 1:
            raise ValueError(f"no numbers of threads: {minimum}:{maximum}")
        self.minimum = minimum
        self.maximum = maximum
        self.exclusive = exclusive
        self.epoch = 0
        self._name = f"djasgi-{name}"
        self._clock = clock
        self._load = Load(clock, cpu)
        self._numbers = 0
        # Timers copy the context they are made in: that of a request must not live on.
        self._context = Context()
        self._forget()
        _pools.add(self)

    def _forget(self) -> None:
        """Begin without threads: in a process that was just forked there are none."""
        self.epoch += 1
        self.closed = False
        self.leases = 0
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._threads: set[PoolThread] = set()
        self._own: set[PoolThread] = set()
        self._idle: list[PoolThread] = []
        self._ending = 0
        self._running = 0
        # Leases whose next call waits: for a thread, or for its own thread's turn.
        self._unbound: deque[Lease] = deque()
        self._bound: deque[Lease] = deque()
        self._ticking = False
        self._exhausted = False
        self._last_bound = self._last_look = 0.0

    @property
    def threads(self) -> int:
        """Threads that are there, busy or not."""
        return len(self._threads) + len(self._own)

    @property
    def running(self) -> int:
        """Threads that run a call, but for those that outlive their request."""
        return self._running

    @property
    def waiting(self) -> int:
        """Requests and connections with a call that waits for a thread."""
        return len(self._unbound) + len(self._bound)

    def stuck(self) -> float:
        """Seconds for which calls have waited while none has ended; 0 if none waits."""
        with self._lock:
            self._drop_cancelled()
            waiting = [queue[0] for queue in (self._unbound, self._bound) if queue]
            if not waiting:
                return 0.0
            ended = max((thread.since for thread in self._threads), default=0.0)
            return self._clock() - max(ended, min(map(_since, waiting)))

    def lease(self) -> Lease:
        """A lease for a new request. To be called in the event loop, as its end is."""
        # asyncio.get_running_loop asks the system for the process, up to Python 3.11.
        loop = self._loop
        if (
            loop is None
            or not loop.is_running()
            or threading.get_ident() != self._loop_thread
        ):
            self._see_loop()
        self.leases += 1
        return Lease(self)

    def _see_loop(self) -> None:
        loop = asyncio.get_running_loop()
        with self._lock:
            if loop is not self._loop:
                self._loop = loop
                self._loop_thread = threading.get_ident()
                self._ticking = False

    def stop(self) -> None:
        """Take no more calls. Threads end when those that were taken have run."""
        with self._lock:
            self.closed = True
            for thread in self._threads | self._own:
                lease = thread.lease
                if lease is not None and not lease.busy:
                    self._give_back(lease)
            self._dispatch()
            self._end_idle()

    def join(self, timeout: float | None) -> bool:
        """Wait for the threads to end; False if one has not after `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in list(self._threads | self._own):
            thread.join(deadline and max(0.0, deadline - time.monotonic()))
        return not self.threads

    # What leases ask for

    def submit(self, lease: Lease, call: Call) -> None:
        with self._lock:
            if self.closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if lease.epoch != self.epoch:
                self._adopt(lease)
            if lease.ended:
                self._remember_task(lease)
            if lease.busy:
                lease.calls.append(call)
                return
            lease.calls = deque((call,))
            lease.busy = True
            call.since = self._clock()
            try:
                self._admit(lease)
            except BaseException:  # there is no thread, and none can be made
                lease.busy = False
                lease.calls.clear()
                raise

    def release(self, lease: Lease) -> None:
        with self._lock:
            lease.released = True
            self._settle(lease)

    # What threads tell

    def finished(self, thread: PoolThread, call: Call) -> None:
        """`thread` has run `call`."""
        with self._lock:
            lease = thread.lease
            if lease is None or thread.epoch != self.epoch:
                return  # forked while it ran
            if not self.exclusive and (rows := unfinished_rows(call)) is not None:
                lease.rows = weakref.ref(rows, partial(self._rows_gone, lease))
            thread.since = self._clock()
            if lease.calls:
                thread.queue.put(lease.calls.popleft())
                return
            lease.busy = False
            if not thread.own:
                self._running -= 1
            self._settle(lease)
            self._dispatch()
            self._end_idle()

    def expire(self, thread: PoolThread) -> bool:
        """Whether `thread`, which had nothing to do for a while, is to end."""
        with self._lock:
            spare = len(self._threads) - self._ending - self.minimum
            if thread not in self._idle or spare <= 0:
                return False
            self._idle.remove(thread)
            self._ending += 1
            return True

    def gone(self, thread: PoolThread) -> None:
        """`thread` ends, its database connections are closed."""
        with self._lock:
            if thread.epoch != self.epoch:
                return
            if thread.own:
                self._own.discard(thread)
            else:
                self._threads.discard(thread)
                self._ending -= 1

    # With the lock held

    def _admit(self, lease: Lease) -> None:
        """Run the next call of `lease`, or let it wait."""
        thread = lease.thread
        room = self._running < self.maximum
        if thread is not None:
            if room or thread.own:
                self._start_call(lease, thread)
                return
            self._bound.append(lease)
        elif lease.ended:
            self._start_call(lease, self._new_thread(own=True))
            return
        elif self._idle and room:
            self._start_call(lease, self._idle.pop())
            return
        elif len(self._threads) < max(1, self.minimum) or (room and not self._loop):
            self._start_call(lease, self._new_thread())
            return
        else:
            self._unbound.append(lease)
        self._watch()

    def _start_call(self, lease: Lease, thread: PoolThread) -> None:
        if lease.thread is None:
            lease.thread = thread
            thread.lease = lease
            lease.released = False
        if not thread.own:
            self._running += 1
        thread.queue.put(lease.calls.popleft())

    def _new_thread(self, *, own: bool = False) -> PoolThread:
        """A thread more. Raises RuntimeError if the system has none."""
        self._numbers += 1
        thread = PoolThread(self, f"{self._name}-{self._numbers}", own=own)
        thread.start()
        self._exhausted = False
        (self._own if own else self._threads).add(thread)
        return thread

    def _settle(self, lease: Lease) -> None:
        """Take the thread from a lease that has no calls, unless it is to keep it."""
        if lease.busy or lease.thread is None or lease.epoch != self.epoch:
            return
        if lease.ended:
            keep = lease.thread.own and bool(lease.tasks)
        elif self.exclusive:
            keep = not lease.released
        else:
            rows = None if lease.rows is None else lease.rows()
            keep = rows is not None and rows.gi_frame is not None
        if self.closed or not keep:
            self._give_back(lease)
            self._dispatch()
            self._end_idle()

    def _give_back(self, lease: Lease) -> None:
        thread = lease.thread
        assert thread is not None  # noqa: S101  # the callers have looked
        lease.thread = thread.lease = lease.rows = None
        if thread.own:
            thread.queue.put(None)
        else:
            self._idle.append(thread)

    def _end_idle(self) -> None:
        """End the threads that are too many, those first that were idle for longest."""
        most = 0 if self.closed else self.maximum
        while self._idle and len(self._idle) + (not self.closed) * self._running > most:
            self._idle.pop(0).queue.put(None)
            self._ending += 1

    def _dispatch(self) -> None:
        """Run what waits, the oldest first, as long as there are threads for it."""
        while self._running < self.maximum and (lease := self._next()) is not None:
            self._start_waiting(lease, lease.thread or self._idle.pop())

    def _next(self) -> Lease | None:
        """The lease that has waited longest, of those for which there is a thread."""
        bound = self._bound[0] if self._bound else None
        unbound = self._unbound[0] if self._unbound and self._idle else None
        if bound is None or unbound is None:
            return bound or unbound
        return min(bound, unbound, key=_since)

    def _start_waiting(self, lease: Lease, thread: PoolThread) -> None:
        """`lease` is the first of those that wait for what it waits for."""
        if lease.thread is None:
            self._unbound.popleft()
            self._last_bound = self._clock()
        else:
            self._bound.popleft()
        self._start_call(lease, thread)

    def _adopt(self, lease: Lease) -> None:
        """`lease` is of the process that this one was forked from."""
        lease.epoch = self.epoch
        lease.busy = False
        lease.thread = None
        lease.tasks = frozenset()

    # Growth

    def _watch(self) -> None:
        """Tick as long as something waits."""
        if self._ticking or self._loop is None:
            return
        self._ticking = True
        self._load.begin()
        if threading.get_ident() == self._loop_thread:
            self._schedule()
        else:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._schedule, context=self._context)

    def _schedule(self) -> None:
        if self._loop is not None:
            self._loop.call_later(TICK, self._tick, context=self._context)

    def _tick(self) -> None:
        with self._lock:
            self._drop_cancelled()
            if not self._unbound and not self._bound:
                self._ticking = False
                return
            calm = self._load.tick()
            now = self._load.now
            full = len(self._threads) >= self.maximum
            if full and self._unbound and awaiting(self._threads, now):
                rounds = ROUNDS
            else:
                rounds = 0
        self._round(rounds, now, calm)

    def _round(self, rounds: int, now: float, calm: bool) -> None:
        """Decide, after so many rounds of the event loop, about the tick at `now`."""
        if rounds and self._loop is not None:
            self._loop.call_soon(
                self._round, rounds - 1, now, calm, context=self._context
            )
            return
        with self._lock:
            try:
                self._grow(now, calm=calm)
            except RuntimeError as error:
                if not self._exhausted:
                    logger.warning("%s: %d are there already", error, self.threads)
                self._exhausted = True
            self._schedule()

    def _grow(self, now: float, *, calm: bool) -> None:
        if self._running >= self.maximum:
            self._look_for_waiting(now)
            return
        if not self._unbound:
            return
        since = _since(self._unbound[0])
        stuck = now - max(since, self._last_bound) >= STUCK
        if now - since < TICK or not (calm or stuck):
            return
        kept = awaiting(self._threads, now)
        room = self.maximum - (len(self._threads) - kept)
        # All threads are awaiting: it is not they that are slow, there are too few.
        number = 1 if kept < len(self._threads) else len(self._unbound)
        for _ in range(min(number, room, self.maximum - self._running)):
            self._start_waiting(self._unbound[0], self._new_thread())

    def _look_for_waiting(self, now: float) -> None:
        """Let one call more run for each that only waits for the event loop.

        Synchronous code that has called `async_to_sync` does nothing until the event
        loop has done that; and that may need another thread, of which Django has as
        many as requests.
        """
        heads = [queue[0] for queue in (self._unbound, self._bound) if queue]
        if not heads:
            return
        oldest = min(heads, key=_since)
        if now - max(_since(oldest), self._last_look) < STUCK:
            return
        self._last_look = now
        waiting = waiting_for_loop(self._threads)
        if self._running - waiting < self.maximum:
            thread = oldest.thread or (self._idle and self._idle.pop())
            self._start_waiting(oldest, thread or self._new_thread())

    def _drop_cancelled(self) -> None:
        """Nothing is to be done for calls of which nobody waits for the result."""
        for queue in (self._unbound, self._bound):
            while queue and (calls := queue[0].calls)[0].future.cancelled():
                lease = queue.popleft()
                calls.popleft().future.set_running_or_notify_cancel()
                if calls:
                    calls[0].since = self._clock()
                    queue.append(lease)
                else:
                    lease.busy = False
                    self._settle(lease)

    # What a lease waits for

    def _remember_task(self, lease: Lease) -> None:
        """The calling task has outlived its request: it has the thread until it ends."""
        try:
            task = asyncio.current_task()
        except RuntimeError:
            return
        if task is not None and task not in lease.tasks:
            lease.tasks |= {task}
            task.add_done_callback(partial(self._task_done, lease))

    def _task_done(self, lease: Lease, task: asyncio.Task[Any]) -> None:
        with self._lock:
            lease.tasks -= {task}
            self._settle(lease)

    def _rows_gone(self, lease: Lease, rows: object) -> None:
        # Wherever it was freed, perhaps with the lock held.
        with suppress(RuntimeError):  # the loop is closed
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._settle_later, lease)

    def _settle_later(self, lease: Lease) -> None:
        with self._lock:
            self._settle(lease)


def _since(lease: Lease) -> float:
    return lease.calls[0].since


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in _pools:
        pool._forget()  # noqa: SLF001


def _at_exit() -> None:
    for pool in list(_pools):
        pool.stop()
        pool.join(None)


os.register_at_fork(after_in_child=_after_fork)
# As concurrent.futures does: before the interpreter joins threads that nothing ends.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]  # noqa: SLF001
