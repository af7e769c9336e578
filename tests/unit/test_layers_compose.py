"""Which layers stand around the application, and in which order."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from djasgi.layers.asgi import App, Message, Scope
from djasgi.layers.compose import compose, wrap
from djasgi.layers.proxy import ProxyHeaders
from djasgi.options import Options

NOTHING = Options(access_log=False, proxy_headers=False)


async def application(scope: Scope, receive: Any, send: Any) -> None:
    headers = [
        (b"path", scope["path"].encode()),
        (b"state", repr(scope.get("state")).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


def test_with_nothing_asked_for_it_is_the_application_itself() -> None:
    assert compose(application, NOTHING, state=None) is application


def test_without_trusted_proxies_unix_peers_are_still_heard() -> None:
    options = Options(access_log=False, forwarded_allow_ips=())

    assert isinstance(compose(application, options, state=None), ProxyHeaders)


def test_all_layers_together(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the client behind the proxy and the path that the client asked for."""
    logger = logging.getLogger("djasgi.access")
    caplog.set_level(logging.INFO, logger=logger.name)
    logger.addHandler(caplog.handler)
    options = Options(root_path="/pre", header=(("X-Frame-Options", "DENY"),))
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "client": ("127.0.0.1", 1),
        "method": "GET",
        "path": "/a",
        "raw_path": b"/a",
        "headers": [(b"x-forwarded-for", b"192.0.2.1"), (b"x-request-id", b"id-1")],
    }
    try:
        asyncio.run(
            compose(application, options, state={"n": 1})(scope, None, send)  # type: ignore[arg-type]
        )
    finally:
        logger.removeHandler(caplog.handler)

    record: Any = caplog.records[0]
    assert (record.client, record.path, record.bytes) == ("192.0.2.1", "/pre/a", 5)
    assert record.request_id == "id-1"
    assert sent[0]["headers"] == [
        (b"path", b"/pre/a"),
        (b"state", b"{'n': 1}"),
        (b"x-frame-options", b"DENY"),
    ]


def test_no_proxy_headers_means_that_nobody_is_believed() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        seen.append(scope)

    scope = {
        "type": "http",
        "client": None,
        "headers": [(b"x-forwarded-proto", b"https")],
        "scheme": "http",
    }
    asyncio.run(compose(app, NOTHING, state=None)(scope, None, None))  # type: ignore[arg-type]

    assert seen[0]["scheme"] == "http"


def test_middleware_is_outermost_first() -> None:
    def named(name: str) -> Any:
        def middleware(app: App) -> App:
            async def outer(scope: Scope, receive: Any, send: Any) -> None:
                scope["path"] += name
                await app(scope, receive, send)

            return outer

        return middleware

    scope: Scope = {"type": "http", "path": "/"}

    async def send(message: Message) -> None:
        pass

    asyncio.run(wrap(application, [named("1"), named("2")])(scope, None, send))  # type: ignore[arg-type]

    assert scope["path"] == "/12"
