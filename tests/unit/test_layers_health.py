from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from djasgi.layers.asgi import App, Message, Receive, Scope, Send
from djasgi.layers.health import Health


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "from the application", "path": scope.get("path")})


def asked(
    path: str,
    method: str = "GET",
    *,
    live: str | None = "/live",
    ready: str | None = "/ready",
    is_ready: Callable[[], bool] = lambda: True,
    log: Any = None,
    kind: str = "http",
) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("it need not read")

    async def send(message: Message) -> None:
        sent.append(message)

    async def ask() -> None:
        layer = Health(application, live, ready, is_ready, log)
        await layer({"type": kind, "method": method, "path": path}, receive, send)

    asyncio.run(ask())
    return sent


def answer(sent: list[Message]) -> tuple[int, bytes]:
    start, body = sent
    headers = dict(start["headers"])
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"content-type"] == b"text/plain; charset=utf-8"
    return start["status"], body["body"]


@pytest.mark.parametrize(
    ("path", "is_ready", "expected"),
    [
        ("/live", True, (200, b"ok\n")),
        ("/live", False, (200, b"ok\n")),
        ("/ready", True, (200, b"ok\n")),
        ("/ready", False, (503, b"stopping\n")),
    ],
)
def test_live_is_always_and_ready_until_the_instance_goes(
    path: str, is_ready: bool, expected: tuple[int, bytes]
) -> None:
    assert answer(asked(path, is_ready=lambda: is_ready)) == expected


@pytest.mark.parametrize("is_ready", [True, False])
def test_head_has_the_length_and_no_body(is_ready: bool) -> None:
    get = asked("/ready", is_ready=lambda: is_ready)
    head = asked("/ready", "HEAD", is_ready=lambda: is_ready)

    assert head[0] == get[0]
    assert dict(head[0]["headers"])[b"content-length"] == b"%d" % len(get[1]["body"])
    assert head[1]["body"] == b""


@pytest.mark.parametrize(
    ("path", "method", "kind"),
    [
        ("/live/", "GET", "http"),
        ("/livex", "GET", "http"),
        ("//live", "GET", "http"),
        ("/LIVE", "GET", "http"),
        ("/", "GET", "http"),
        ("/live", "POST", "http"),
        ("/live", "OPTIONS", "http"),
        ("/live", "GET", "websocket"),
    ],
)
def test_everything_else_is_the_applications(path: str, method: str, kind: str) -> None:
    (message,) = asked(path, method, kind=kind)

    assert message["type"] == "from the application"


def test_a_scope_without_a_path_is_the_applications() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    layer = Health(application, "/live", None, lambda: True)
    asyncio.run(layer({"type": "lifespan"}, None, send))  # type: ignore[arg-type]  # it does not read

    assert sent == [{"type": "from the application", "path": None}]


def test_only_what_was_asked_for_is_answered() -> None:
    assert asked("/ready", ready=None)[0]["type"] == "from the application"
    assert asked("/live", live=None)[0]["type"] == "from the application"
    one = asked("/up", live="/up", ready="/up", is_ready=lambda: False)
    assert answer(one) == (503, b"stopping\n")


def test_a_log_is_around_the_answers_only() -> None:
    logged: list[str] = []

    def log(app: App) -> App:
        async def logging(scope: Scope, receive: Receive, send: Send) -> None:
            logged.append(scope["path"])
            await app(scope, receive, send)

        return logging

    asked("/live", log=log)
    asked("/other", log=log)

    assert logged == ["/live"]
