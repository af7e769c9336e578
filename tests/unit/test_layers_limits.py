"""The limits of a request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from djasgi.layers.limits import (
    LimitConcurrency,
    MaxBodySize,
    RequestTimeout,
    _TooLargeError,
)

App = Callable[[Any, Any, Any], Awaitable[None]]

OK = {"type": "http.response.start", "status": 200, "headers": []}
END = {"type": "http.response.body", "body": b"ok"}


def scope(*headers: tuple[bytes, bytes], kind: str = "http") -> dict[str, Any]:
    return {"type": kind, "http_version": "1.1", "headers": list(headers)}


class Client:
    """Sends parts of a body, one for each call of `receive`; then waits for ever."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = list(parts)
        self.sent: list[Any] = []
        self.answered = asyncio.Event()

    async def receive(self) -> Any:
        if self.parts:
            part = self.parts.pop(0)
            more = bool(self.parts)
            return {"type": "http.request", "body": part, "more_body": more}
        await self.answered.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body":
            self.answered.set()

    @property
    def status(self) -> int:
        [start] = [m for m in self.sent if m["type"] == "http.response.start"]
        return int(start["status"])


async def reading(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send(OK)
    await send(END)


# Concurrency


def test_only_so_many_requests_run_at_once() -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await go.wait()
            await send(OK)
            await send(END)

        layer = LimitConcurrency(app, 2)
        clients = [Client() for _ in range(3)]
        tasks = [
            asyncio.ensure_future(layer(scope(), c.receive, c.send)) for c in clients
        ]
        await tasks[2]
        go.set()
        await asyncio.gather(*tasks)
        assert [c.status for c in clients] == [200, 200, 503]
        assert (b"retry-after", b"1") in clients[2].sent[0]["headers"]
        last = Client()
        await layer(scope(), last.receive, last.send)
        assert last.status == 200

    asyncio.run(main())


def test_failing_and_other_scopes_leave_the_count_alone() -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise RuntimeError

        layer = LimitConcurrency(app, 1)
        for kind in ("http", "http", "websocket", "websocket"):
            with pytest.raises(RuntimeError):
                await layer(scope(kind=kind), None, None)  # type: ignore[arg-type]

    asyncio.run(main())


# Body


@pytest.mark.parametrize(
    ("parts", "headers", "status"),
    [
        ([b"12345"], [(b"content-length", b"5")], 200),
        ([b"123", b"45"], [], 200),
        ([], [(b"content-length", b"6")], 413),
        ([b"123", b"456"], [], 413),
    ],
)
def test_body(
    parts: list[bytes], headers: list[tuple[bytes, bytes]], status: int
) -> None:
    async def main() -> None:
        client = Client(*parts)
        layer = MaxBodySize(reading, 5)
        await layer(scope(*headers), client.receive, client.send)
        assert client.status == status

    asyncio.run(main())


def test_application_that_has_begun_its_response_sees_the_error() -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(OK)
            await reading(scope, receive, send)

        client = Client(b"123456")
        with pytest.raises(_TooLargeError):
            await MaxBodySize(app, 5)(scope(), client.receive, client.send)
        assert client.sent == [OK]

    asyncio.run(main())


def test_application_that_ignores_the_error_is_answered_for() -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            with pytest.raises(_TooLargeError):
                await receive()

        client = Client(b"123456")
        await MaxBodySize(app, 5)(scope(), client.receive, client.send)
        assert client.status == 413

    asyncio.run(main())


# Time


def test_application_that_listens_ends_by_itself() -> None:
    async def main() -> None:
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            seen.append(await receive())
            await send(OK)  # too late: nobody hears it

        client = Client(b"")
        await RequestTimeout(app, 0.05)(scope(), client.receive, client.send)
        assert seen == [{"type": "http.disconnect"}]
        assert client.status == 503

    asyncio.run(main())


def test_application_that_does_not_listen_is_cancelled() -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.Event().wait()

        client = Client(b"")
        await RequestTimeout(app, 0.05)(scope(), client.receive, client.send)
        assert client.status == 503
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()

    asyncio.run(main())


def test_cancellation_from_outside_is_not_swallowed() -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.Event().wait()

        client = Client(b"")
        coroutine: Any = RequestTimeout(app, 60)(scope(), client.receive, client.send)
        task = asyncio.ensure_future(coroutine)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.sent == []

    asyncio.run(main())


def test_time_of_the_client_does_not_count_nor_that_of_a_stream() -> None:
    async def main() -> None:
        class Slow(Client):
            async def receive(self) -> Any:
                await asyncio.sleep(0.12)
                return await super().receive()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            while (await receive())["more_body"]:
                pass
            await send(OK)
            await asyncio.sleep(0.4)
            await send(END)

        client = Slow(b"1", b"2", b"3")
        await RequestTimeout(app, 0.25)(scope(), client.receive, client.send)
        assert client.status == 200
        assert client.sent[-1] == END

    asyncio.run(main())
