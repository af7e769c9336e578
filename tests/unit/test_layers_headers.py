"""Headers added to responses."""

from __future__ import annotations

import asyncio
from typing import Any

from djasgi.layers.asgi import Message, Scope
from djasgi.layers.headers import ResponseHeaders


def sent(
    message: Message, *headers: tuple[str, str], kind: str = "http"
) -> list[Message]:
    messages: list[Message] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send(message)

    async def send(message: Message) -> None:
        messages.append(message)

    asyncio.run(
        ResponseHeaders(app, headers)({"type": kind}, None, send)  # type: ignore[arg-type]
    )
    return messages


def test_headers_follow_those_of_the_application() -> None:
    start = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"1")]}

    (message,) = sent(start, ("X-Frame-Options", "DENY"), ("X-Name", "Zoë"))

    assert message == {
        "type": "http.response.start",
        "status": 200,
        "headers": [
            (b"a", b"1"),
            (b"x-frame-options", b"DENY"),
            (b"x-name", b"Zo\xeb"),
        ],
    }
    assert start["headers"] == [(b"a", b"1")]


def test_the_applications_own_value_wins() -> None:
    start = {"type": "http.response.start", "headers": [(b"X-Frame-Options", b"SAME")]}

    (message,) = sent(start, ("x-frame-options", "DENY"))

    assert message["headers"] == [(b"X-Frame-Options", b"SAME")]


def test_several_values_of_one_name_are_all_added() -> None:
    (message,) = sent(
        {"type": "http.response.start"}, ("Link", "</a>"), ("Link", "</b>")
    )

    assert message["headers"] == [(b"link", b"</a>"), (b"link", b"</b>")]


def test_a_refused_websocket_handshake_is_a_response() -> None:
    start = {"type": "websocket.http.response.start", "status": 401, "headers": []}

    (message,) = sent(start, ("A", "b"), kind="websocket")

    assert message["headers"] == [(b"a", b"b")]


def test_other_messages_pass_as_they_are() -> None:
    body = {"type": "http.response.body", "body": b"x"}

    assert sent(body, ("A", "b"))[0] is body


def test_lifespan_messages_pass_as_they_are() -> None:
    start = {"type": "http.response.start"}

    assert sent(start, ("A", "b"), kind="lifespan")[0] is start
