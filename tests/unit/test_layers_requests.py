"""The layer that knows what is running."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from djasgi.layers.requests import Requests
from djasgi.threads import Threads
from djasgi.threads.leases import Leases
from tests.support.process import TIMEOUT

HTTP = {"type": "http", "http_version": "1.1"}
START = {"type": "http.response.start", "status": 200, "headers": []}
PART = {"type": "http.response.body", "body": b"part", "more_body": True}
LAST = {"type": "http.response.body", "body": b"last"}
OF_EVENTS = (b"Content-Type", b"Text/Event-Stream; charset=utf-8")
EVENTS = {**START, "headers": [OF_EVENTS]}
END = {"type": "http.response.body", "body": b"", "more_body": False}
BODY = {"type": "http.request", "body": b"", "more_body": False}
DISCONNECT = {"type": "http.disconnect"}

App = Callable[[Any, Any, Any], Awaitable[None]]


class Server:
    """The other side of an application; a request, or what `messages` says."""

    def __init__(self, app: App, leases: Leases | None = None) -> None:
        self.requests = Requests(app, leases)
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.sent: list[Any] = []

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    def serve(self, **scope: Any) -> asyncio.Task[Any]:
        coroutine: Any = self.requests(HTTP | scope, self.messages.get, self.send)
        return asyncio.ensure_future(coroutine)


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def plain(scope: Any, receive: Any, send: Any) -> None:
    await send(START)
    await send(LAST)


def streaming(start: Any, seen: list[Any]) -> App:
    """Sends a part, then waits for the client to go; notes what it receives."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start)
        await send(PART)
        seen.append(await receive())
        seen.append(await receive())

    return app


def test_counts_requests_and_websockets() -> None:
    async def main() -> None:
        let_go = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await let_go.wait()
            if scope.get("fail"):
                raise RuntimeError

        server = Server(app)
        tasks = [server.serve(), server.serve(type="websocket"), server.serve(fail=1)]
        await turns()
        assert (server.requests.active, server.requests.total) == (3, 3)
        let_go.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (server.requests.active, server.requests.total) == (0, 3)

    asyncio.run(main())


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("ending", ["return", "raise", "cancel"])
def test_each_has_a_lease_until_it_has_ended(kind: str, ending: str) -> None:
    threads = Threads(1, 1)

    async def main() -> None:
        running, let_go = asyncio.Event(), asyncio.Event()
        ran_on: list[str] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            ran_on.append((await sync_to_async(threading.current_thread)()).name)
            running.set()
            await let_go.wait()
            if ending == "raise":
                raise RuntimeError

        server = Server(app, Leases(threads))
        task = server.serve(type=kind)
        await asyncio.wait_for(running.wait(), TIMEOUT)
        pool = threads.requests if kind == "http" else threads.websockets
        assert (pool.leases, threads.leases) == (1, 1)
        let_go.set()
        if ending == "cancel":
            task.cancel()
        await asyncio.wait({task}, timeout=TIMEOUT)
        assert task.cancelled() is (ending == "cancel")
        assert threads.leases == 0
        name = "request" if kind == "http" else "websocket"
        assert ran_on == [f"djasgi-{name}-1"]

    asyncio.run(main())
    assert threads.close(TIMEOUT)


def test_passes_everything_on_as_it_is() -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert await receive() is request
            await plain(scope, receive, send)

        server = Server(app)
        request = {"type": "http.request"}
        server.messages.put_nowait(request)
        await server.serve()
        assert server.sent[0] is START
        assert server.sent[1] is LAST

    asyncio.run(main())


@pytest.mark.parametrize(
    ("version", "headers", "expected"),
    [
        ("1.1", [], [(b"connection", b"close")]),
        ("1.0", [], [(b"connection", b"close")]),
        (
            "1.1",
            [(b"Connection", b"keep-alive"), (b"X", b"y")],
            [(b"X", b"y"), (b"connection", b"close")],
        ),
        ("2", [(b"X", b"y")], [(b"X", b"y")]),
    ],
)
def test_responses_that_start_in_a_drain_are_the_last_of_their_connection(
    version: str, headers: Any, expected: Any
) -> None:
    async def main() -> None:
        start = {**START, "headers": headers}

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(start)
            await send(LAST)

        server = Server(app)
        await server.serve(http_version=version)
        assert server.sent.pop(0) is start
        server.requests.drain(5)
        await server.serve(http_version=version)
        assert server.sent[1] == {**START, "headers": expected}
        assert start["headers"] is headers

    asyncio.run(main())


def test_application_that_waits_sees_a_disconnect_and_an_event_stream_is_ended() -> (
    None
):
    async def main() -> None:
        seen: list[Any] = []
        server = Server(streaming(EVENTS, seen))
        task = server.serve()
        await turns()
        server.requests.drain(0)
        await task
        assert seen == [DISCONNECT, DISCONNECT]
        assert server.sent[-1] == END
        assert task.cancelling() == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    "start",
    [START, {**EVENTS, "headers": [OF_EVENTS, (b"Content-Length", b"9")]}],
)
def test_anything_else_is_left_unfinished(start: Any) -> None:
    async def main() -> None:
        server = Server(streaming(start, []))
        task = server.serve()
        await turns()
        server.requests.drain(0)
        await task
        assert server.sent[-1] is PART

    asyncio.run(main())


def test_message_that_is_there_comes_before_the_disconnect() -> None:
    async def main() -> None:
        seen: list[Any] = []
        server = Server(streaming(START, seen))
        task = server.serve()
        server.messages.put_nowait(BODY)
        await turns()
        server.requests.drain(0)
        await task
        assert seen == [BODY, DISCONNECT]

    asyncio.run(main())


def test_response_that_is_complete_is_left_alone() -> None:
    """The application may work on, and wait for its client to go."""

    async def main() -> None:
        seen: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await plain(scope, receive, send)
            seen.append(await receive())

        server = Server(app)
        task = server.serve()
        await turns()
        server.requests.drain(0)
        await asyncio.sleep(0.2)
        server.messages.put_nowait(BODY)
        await task
        assert seen == [BODY]

    asyncio.run(main())


def test_request_that_has_not_been_answered_is_left_alone() -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert await receive() == BODY
            await plain(scope, receive, send)

        server = Server(app)
        task = server.serve()
        await turns()
        server.requests.drain(0)
        await asyncio.sleep(0.2)
        server.messages.put_nowait(BODY)
        await task
        assert len(server.sent) == 2

    asyncio.run(main())


def test_application_that_does_not_care_goes_on() -> None:
    async def main() -> None:
        let_go = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            await send(PART)
            await let_go.wait()
            await send(LAST)

        server = Server(app)
        task = server.serve()
        await turns()
        server.requests.drain(0)
        await asyncio.sleep(0.2)
        let_go.set()
        await task
        assert server.sent == [START, PART, LAST]

    asyncio.run(main())


def test_cancelling_is_not_mistaken_for_a_disconnect() -> None:
    async def main() -> None:
        server = Server(streaming(START, []))
        for drain in (False, True):
            task = server.serve()
            await turns()
            if drain:
                server.requests.drain(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())


def test_application_that_is_cancelled_by_itself_has_ended() -> None:
    """It may cancel its own task, or let a cancelled one's error through."""

    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(EVENTS)
            assert await receive() == DISCONNECT
            raise asyncio.CancelledError

        server = Server(app)
        task = server.serve()
        await turns()
        server.requests.drain(0)
        await task
        assert server.sent == [EVENTS, END]

    asyncio.run(main())


def test_error_of_an_application_is_not_hidden(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send(EVENTS)
            await receive()
            raise RuntimeError("a fault")

        server = Server(app)
        task = server.serve()
        await turns()
        server.requests.drain(0)
        await task
        assert server.sent == [EVENTS]

    asyncio.run(main())
    [record] = caplog.records
    assert record.exc_info
    assert str(record.exc_info[1]) == "a fault"


def test_receive_in_a_task_of_its_own_as_django_does() -> None:
    async def main() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            waiting = asyncio.ensure_future(receive())
            await send(EVENTS)
            assert await asyncio.wait_for(waiting, 5) == DISCONNECT

        server = Server(app)
        task = server.serve()
        await turns()
        server.requests.drain(0)
        await task
        assert server.sent == [EVENTS, END]

    asyncio.run(main())
