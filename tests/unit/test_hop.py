"""A hop of djasgi is one of asgiref's: each test runs with both, on the same lease."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from asgiref.local import Local
from asgiref.sync import SyncToAsync, async_to_sync, sync_to_async

from djasgi.threads import Threads
from djasgi.threads.hop import hop, usable_lease
from tests.support.leases import with_lease
from tests.support.process import TIMEOUT

Hop = Callable[..., Awaitable[Any]]

VARIABLE: ContextVar[str] = ContextVar("variable", default="")
LOCAL = Local()


async def of_asgiref(function: Callable[..., Any], *args: Any) -> Any:
    return await sync_to_async(function)(*args)


async def of_djasgi(function: Callable[..., Any], *args: Any) -> Any:
    lease = usable_lease()
    assert lease is not None
    return await hop(lease, function, *args)


@pytest.fixture(params=[of_asgiref, of_djasgi], ids=["asgiref", "djasgi"])
def there(request: pytest.FixtureRequest) -> Hop:
    made: Hop = request.param
    return made


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads(1, 1)
    yield threads
    assert threads.close(TIMEOUT)


def serve(threads: Threads, view: Callable[[], Awaitable[None]]) -> None:
    """Run `view` as a request does."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        async with asyncio.timeout(TIMEOUT):
            await view()

    layer: Any = with_lease(application, threads)
    asyncio.run(layer({"type": "http"}, None, None))


def test_thread_result_and_arguments(there: Hop, threads: Threads) -> None:
    def function(*args: int) -> tuple[str, int]:
        return threading.current_thread().name, sum(args)

    async def view() -> None:
        assert await there(function, 1, 2) == ("djasgi-request-1", 3)

    serve(threads, view)


def test_exception(there: Hop, threads: Threads) -> None:
    def function() -> None:
        raise LookupError("nothing")

    async def view() -> None:
        with pytest.raises(LookupError, match="nothing") as raised:
            await there(function)
        assert raised.traceback[-1].name == "function"

    serve(threads, view)


def test_context_goes_both_ways(there: Hop, threads: Threads) -> None:
    def function() -> tuple[str, str]:
        seen = VARIABLE.get(), LOCAL.value
        VARIABLE.set("below")
        LOCAL.value = "below"
        return seen

    async def view() -> None:
        VARIABLE.set("above")
        LOCAL.value = "above"
        assert await there(function) == ("above", "above")
        assert (VARIABLE.get(), LOCAL.value) == ("below", "below")

    serve(threads, view)


def test_context_goes_both_ways_when_it_raises(there: Hop, threads: Threads) -> None:
    def function() -> None:
        VARIABLE.set("below")
        raise LookupError

    async def view() -> None:
        with pytest.raises(LookupError):
            await there(function)
        assert VARIABLE.get() == "below"

    serve(threads, view)


def test_what_asgiref_knows_in_the_thread(there: Hop, threads: Threads) -> None:
    async def above() -> Any:
        return asyncio.get_running_loop(), await sync_to_async(threading.get_ident)()

    def function() -> Any:
        known = vars(SyncToAsync.threadlocal)
        assert known["main_event_loop_pid"] == os.getpid()
        assert known["task_context"] == []
        assert set(known) == {"main_event_loop", "main_event_loop_pid", "task_context"}
        loop, thread = async_to_sync(above)()
        assert loop is known["main_event_loop"]
        return thread == threading.get_ident(), loop

    async def view() -> None:
        assert await there(function) == (True, asyncio.get_running_loop())

    serve(threads, view)


def test_call_that_has_not_begun_is_taken_back(there: Hop, threads: Threads) -> None:
    go_on, called = threading.Event(), list[str]()

    async def view() -> None:
        first = asyncio.ensure_future(there(go_on.wait, TIMEOUT))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(there(called.append, "second"))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        go_on.set()
        assert await first
        await there(called.append, "third")

    serve(threads, view)
    assert called == ["third"]


def test_call_that_runs_is_left_to_itself(there: Hop, threads: Threads) -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def function() -> None:
        begun.set()
        assert go_on.wait(TIMEOUT)
        ended.set()

    async def view() -> None:
        call = asyncio.ensure_future(there(function))
        await asyncio.to_thread(begun.wait, TIMEOUT)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not ended.is_set()
        go_on.set()
        assert await asyncio.to_thread(ended.wait, TIMEOUT)

    serve(threads, view)


@pytest.mark.parametrize("survives", [True, False])
def test_cancelling_reaches_what_runs_above_the_thread(
    there: Hop, threads: Threads, survives: bool
) -> None:
    waiting = threading.Event()

    async def above() -> str:
        waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not survives:
                raise
        return "went on"

    def function() -> str:
        return async_to_sync(above)()

    async def view() -> None:
        call = asyncio.ensure_future(there(function))
        await asyncio.to_thread(waiting.wait, TIMEOUT)
        call.cancel()
        if survives:
            assert await call == "went on"
        else:
            with pytest.raises(asyncio.CancelledError):
                await call

    serve(threads, view)


def test_loop_that_is_closed_meanwhile(there: Hop, threads: Threads) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def function() -> None:
        begun.set()
        assert go_on.wait(TIMEOUT)

    async def view() -> None:
        call = asyncio.ensure_future(there(function))
        await asyncio.to_thread(begun.wait, TIMEOUT)
        call.cancel()

    serve(threads, view)
    go_on.set()
    serve(threads, lambda: there(int))


def test_where_asgiref_would_go_elsewhere_there_is_no_lease(threads: Threads) -> None:
    async def above() -> None:
        assert usable_lease() is None  # the thread that waits for this runs its calls

    async def view() -> None:
        assert usable_lease() is not None
        await sync_to_async(async_to_sync(above))()
        try:
            dict[str, int]()["nothing"]
        except LookupError:
            assert usable_lease() is None  # the call is to see the exception
            seen = await sync_to_async(lambda: type(sys.exc_info()[1]))()
            assert seen is KeyError

    serve(threads, view)

    async def without() -> None:
        assert usable_lease() is None

    asyncio.run(without())
