"""A coroutine that carries on where its next step belongs: in the thread, or on the loop.

Django's handler goes to the request's thread and comes back for every synchronous hook. A
strand stays there until something has to be awaited on the event loop, so neighbouring
synchronous steps cost one hop together. What a step sees is the same as behind Django's
own `sync_to_async`: that is what takes the strand to the thread (asgiref keeps the thread
of a request, carries context variables both ways, and knows about calls back).

Cancellation is that of `sync_to_async` too: the task that waits is told at once, a step
that runs goes on to its end, its result is dropped, and nothing runs after it.
"""

from __future__ import annotations

import asyncio
import threading
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar

from asgiref.sync import AsyncToSync, SyncToAsync, sync_to_async

from djasgi.threads.hop import hop, usable_lease

T = TypeVar("T")

_ELSEWHERE: Any = object()
"""What a strand yields to be taken to the other side."""


class _Here(threading.local):
    """The strand that this thread is stepping through, if any."""

    strand: Strand | None = None


here = _Here()


def has_loop() -> bool:
    """Whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@types.coroutine
def _elsewhere() -> Generator[Any, Any, None]:
    yield _ELSEWHERE


class Strand:
    """One coroutine on its way through thread and loop."""

    __slots__ = ("_bridge", "_steps", "cancelled", "in_thread")

    _steps: Generator[Any, Any, Any]
    _bridge: dict[str, Any]

    def __init__(self) -> None:
        self.in_thread = False
        self.cancelled = False

    async def call(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """What `function` returns, called in the request's thread.

        Raises CancelledError, and drops what `function` returned or raised, if the task
        was cancelled meanwhile.
        """
        __traceback_hide__ = True
        if not self.in_thread:
            await _elsewhere()
        return self.call_here(function, *args, **kwargs)

    def call_here(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """As `call`, for a strand that is in the thread already."""
        __traceback_hide__ = True
        self._mend_bridge()
        try:
            return function(*args, **kwargs)
        finally:
            if self.cancelled:
                raise asyncio.CancelledError

    async def thread(self) -> None:
        """Carry on in the request's thread."""
        if not self.in_thread:
            await _elsewhere()

    async def loop(self) -> None:
        """Carry on on the event loop. Raises CancelledError if the task was cancelled."""
        if self.in_thread:
            if self.cancelled:
                raise asyncio.CancelledError
            self.in_thread = False
            await _elsewhere()

    async def run(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """What `function(strand, *args)` returns; on the event loop, as a task does."""
        __traceback_hide__ = True
        self._steps = function(self, *args).__await__()
        result: T = await self._drive()
        return result

    @types.coroutine
    def _drive(self) -> Generator[Any, Any, Any]:
        __traceback_hide__ = True
        steps = self._steps
        advance: Callable[[Any], Any] = steps.send
        argument: Any = None
        while True:
            try:
                signal = advance(argument)
            except StopIteration as end:
                return end.value
            advance, argument = steps.send, None
            turn: dict[str, str] = {}
            try:
                if signal is not _ELSEWHERE:
                    argument = yield signal
                    continue
                finished, value, error = yield from _hop(self, turn).__await__()
            except GeneratorExit:
                if signal is not _ELSEWHERE or turn.setdefault("by", "loop") == "loop":
                    steps.close()
                raise
            except BaseException as raised:
                if signal is _ELSEWHERE and turn.setdefault("by", "loop") == "thread":
                    self.cancelled = True  # it runs, and cannot be interrupted
                    raise
                self.in_thread = False
                advance, argument = steps.throw, raised
            else:
                if error is not None:
                    try:
                        raise error
                    finally:
                        del error
                if finished:
                    return value

    def step(self) -> tuple[bool, Any, BaseException | None]:
        """Go on in this thread until the end, or until the loop is needed.

        Whether it ended, what was returned, and what was raised.
        """
        __traceback_hide__ = True
        self._bridge = dict(vars(SyncToAsync.threadlocal))
        outer, here.strand = here.strand, self
        try:
            self._steps.send(None)
        except StopIteration as finished:
            return True, finished.value, None
        except BaseException as error:  # noqa: BLE001  # raised on the other side
            return True, None, error
        finally:
            here.strand = outer
        return False, None, None

    def run_in_thread(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:
        """What `function(strand, *args)` returns, from synchronous code below a strand.

        In this thread as long as nothing has to be awaited, then as `async_to_sync`.
        """
        __traceback_hide__ = True
        self.in_thread = True
        self._steps = function(self, *args).__await__()
        with _UnderWay(self):
            finished, value, error = self.step()
            if not finished:
                self._mend_bridge()
                value = AsyncToSync(self._resume)()
            elif error is not None:
                try:
                    raise error
                finally:
                    del error
            if self.cancelled:
                raise asyncio.CancelledError
            result: T = value
            return result

    def _mend_bridge(self) -> None:
        """Let asgiref know again to which loop and task this thread belongs.

        What was called before may have gone to a loop and back on its own, and asgiref
        takes that for granted from then on, until the next hop.
        """
        bridge = SyncToAsync.threadlocal
        # A hop sets all, and this one to a list of its own.
        if getattr(bridge, "task_context", None) is not self._bridge.get(
            "task_context"
        ):
            vars(bridge).update(self._bridge)

    async def _resume(self) -> Any:
        __traceback_hide__ = True
        return await self._drive()


def _step(strand: Strand, turn: dict[str, str]) -> tuple[bool, Any, Any]:
    __traceback_hide__ = True
    # Of the thread that begins and the loop that cancels, the first wins: `setdefault`
    # is atomic.
    if turn.setdefault("by", "thread") != "thread":
        return False, None, None  # cancelled before it began; the loop went on without
    strand.in_thread = True
    return strand.step()


_through_asgiref: Callable[..., Coroutine[Any, Any, Any]] = sync_to_async(_step)


def _hop(strand: Strand, turn: dict[str, str]) -> Coroutine[Any, Any, Any]:
    lease = usable_lease()
    if lease is None:
        return _through_asgiref(strand, turn)
    return hop(lease, _step, strand, turn)


class _UnderWay:
    """Work below synchronous middleware, as asgiref's cancellation has to see it.

    asgiref cancels the task that runs below the thread (`async_to_sync`), and lets the
    thread finish, if there is one; otherwise it abandons the thread. A strand that goes
    on in the thread takes the place of that task.
    """

    def __init__(self, strand: Strand) -> None:
        self.strand = strand
        self.tasks: list[Any] = SyncToAsync.threadlocal.task_context
        self.innermost: Any = self

    def __enter__(self) -> None:
        self.tasks.append(self)

    def __exit__(self, *_: object) -> None:
        self.tasks.remove(self)

    def cancel(self) -> None:
        self.innermost = self.tasks[-1]
        if isinstance(self.innermost, _UnderWay):
            self.innermost.strand.cancelled = True
        else:
            self.innermost.cancel()

    def __await__(self) -> Generator[Any, Any, None]:
        if not isinstance(self.innermost, _UnderWay):
            yield from self.innermost.__await__()
