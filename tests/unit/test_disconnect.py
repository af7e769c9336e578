"""Awaiting a `receive` without a task."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.core.handlers import asgi

from djasgi.disconnect import Watch, receiver
from djasgi.handler.listener import is_known
from djasgi.layers.requests import Exchange, Requests
from tests.support.process import TIMEOUT


def test_message_is_told_when_it_comes() -> None:
    async def main() -> None:
        queue: asyncio.Queue[str] = asyncio.Queue()
        told: asyncio.Future[str] = asyncio.Future()
        Watch(queue.get(), told.set_result)
        await asyncio.sleep(0)
        assert not told.done()
        queue.put_nowait("gone")
        assert await asyncio.wait_for(told, TIMEOUT) == "gone"

    asyncio.run(main())


def test_message_that_is_there_is_told_at_once() -> None:
    async def main() -> None:
        queue: asyncio.Queue[str] = asyncio.Queue()
        queue.put_nowait("gone")
        told: list[str] = []
        Watch(queue.get(), told.append).close()
        assert told == ["gone"]

    asyncio.run(main())


def test_turns_of_the_loop_are_taken() -> None:
    async def receive() -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "gone"

    async def main() -> None:
        told: asyncio.Future[str] = asyncio.Future()
        Watch(receive(), told.set_result)
        assert not told.done()
        assert await asyncio.wait_for(told, TIMEOUT) == "gone"

    asyncio.run(main())


def test_nothing_is_told_or_lost_after_closing() -> None:
    async def main() -> None:
        queue: asyncio.Queue[str] = asyncio.Queue()
        told: list[str] = []
        watch = Watch(queue.get(), told.append)
        watch.close()
        watch.close()
        watch.end("no")
        queue.put_nowait("kept")
        await asyncio.sleep(0)
        assert told == []
        assert await queue.get() == "kept"

    asyncio.run(main())


@pytest.mark.parametrize("when", ["before", "during"])
def test_end_of_a_drain_is_told_as_a_disconnect(when: str) -> None:
    async def receive() -> Any:
        await asyncio.Event().wait()

    async def main() -> None:
        requests: Any = Requests(None)  # type: ignore[arg-type]
        exchange = Exchange(requests, {"type": "http"}, receive, None)  # type: ignore[arg-type]
        assert receiver(exchange.receive) is exchange
        told: list[Any] = []
        if when == "before":
            exchange.end()
        watch = exchange.watch(told.append)
        exchange.end()
        assert told == [{"type": "http.disconnect"}]
        assert not exchange.gone
        watch.close()

    asyncio.run(main())


def test_other_receive_cannot_be_watched() -> None:
    async def receive() -> Any:
        pass

    assert receiver(receive) is None


def test_this_django_listens_as_is_known_here() -> None:
    assert is_known(asgi.ASGIHandler.handle)


def test_what_is_not_known_is_left_to_asyncio() -> None:
    async def handle() -> None:
        await asyncio.wait_for(asyncio.wait([]), 1)

    async def no_task() -> None:
        pass

    assert not is_known(handle)
    assert not is_known(no_task)
