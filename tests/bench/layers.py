"""What each layer costs a request, without a server: µs, beside the bare application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from time import perf_counter
from typing import Any

from djasgi.layers.access import AccessLog
from djasgi.layers.asgi import App, Message, Scope
from djasgi.layers.compose import compose
from djasgi.layers.headers import ResponseHeaders
from djasgi.layers.health import Health
from djasgi.layers.lifespan import State
from djasgi.layers.limits import LimitConcurrency, MaxBodySize, RequestTimeout
from djasgi.layers.proxy import ProxyHeaders
from djasgi.layers.requests import Requests
from djasgi.layers.root_path import RootPath
from djasgi.options import Options
from djasgi.threads import Threads
from djasgi.threads.leases import Leases
from tests.bench.figures import Figure, interleave
from tests.bench.process import progress

ROUNDS = 15
REQUESTS = 3000

TRUSTED = ("127.0.0.1", "::1")

FORWARDED = [(b"x-forwarded-for", b"192.0.2.7"), (b"x-forwarded-proto", b"https")]

BODY = {"type": "http.request", "body": b"", "more_body": False}
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/plain"), (b"content-length", b"5")],
}
END = {"type": "http.response.body", "body": b"hello"}


async def hello(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    await send(START)
    await send(END)


def _with_leases(app: App) -> App:
    return Requests(app, Leases(Threads(*Options().threads)))


LAYERS: Mapping[str, Callable[[App], App]] = {
    "requests, always": Requests,
    "requests, with threads": _with_leases,
    "access log": lambda app: AccessLog(app, TRUSTED),
    "proxy headers, none sent": lambda app: ProxyHeaders(app, TRUSTED),
    "proxy headers, forwarded": lambda app: ProxyHeaders(app, TRUSTED),
    "root path": lambda app: RootPath(app, "/shop"),
    "response headers, one": lambda app: ResponseHeaders(app, [("X-A", "1")]),
    "health": lambda app: Health(app, "/live", "/ready", lambda: True),
    "lifespan state": lambda app: State(app, {"a": 1}),
    "limit concurrency": lambda app: LimitConcurrency(app, 100),
    "max body size": lambda app: MaxBodySize(app, 1_000_000),
    "request timeout": lambda app: RequestTimeout(app, 30),
    "all of the defaults": lambda app: _with_leases(compose(app, Options(), state={})),
}


def measure(rounds: int) -> Iterator[Figure]:
    logger = logging.getLogger("djasgi.access")
    before = logger.handlers[:], logger.level, logger.propagate
    # A record costs what is done to make it; to write it is the logging's.
    logger.handlers[:] = [logging.NullHandler()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        for name, layer in LAYERS.items():
            figure = Figure(f"layer: {name}", "µs", None)
            progress(figure.title)
            more = FORWARDED if "forwarded" in name else []
            application = layer(hello)
            yield interleave(
                figure,
                rounds,
                lambda app=application, more=more: microseconds(app, more),  # type: ignore[misc]
                lambda more=more: microseconds(hello, more),  # type: ignore[misc]
            )
    finally:
        logger.handlers[:], logger.level, logger.propagate = before


def microseconds(app: App, more: list[tuple[bytes, bytes]]) -> float:
    """Of one request, of many."""
    return asyncio.run(_run(app, more))


async def _run(app: App, more: list[tuple[bytes, bytes]]) -> float:
    async def receive() -> Message:
        return BODY

    async def send(message: Message) -> None:
        pass

    headers = [
        (b"host", b"localhost:8000"),
        (b"user-agent", b"wrk"),
        (b"accept", b"*/*"),
        (b"connection", b"keep-alive"),
        *more,
    ]
    begun = perf_counter()
    for _ in range(REQUESTS):
        await app(
            {
                "type": "http",
                "http_version": "1.1",
                "method": "GET",
                "scheme": "http",
                "path": "/",
                "raw_path": b"/",
                "query_string": b"",
                "root_path": "",
                "headers": headers,
                "client": ("127.0.0.1", 50_000),
                "server": ("127.0.0.1", 8000),
            },
            receive,
            send,
        )
    return (perf_counter() - begun) / REQUESTS * 1e6
