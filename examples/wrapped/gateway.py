"""An ASGI application of plain Python, with Django mounted under /site."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from config.asgi import application as django

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MOUNT = "/site"


async def application(scope: Message, receive: Receive, send: Send) -> None:
    match scope["type"]:
        case "lifespan":
            await lifespan(scope, receive, send)
        case "http":
            await route(scope, receive, send)
        case "websocket":
            await receive()
            await send({"type": "websocket.close"})


async def route(scope: Message, receive: Receive, send: Send) -> None:
    # The path is whole, whoever mounts us: what lies before us is the root path.
    # https://asgi.readthedocs.io/en/latest/specs/www.html
    root_path = scope.get("root_path", "")
    path = scope["path"].removeprefix(root_path)
    if path == "/health":
        await respond(send, 200, b"ok\n")
    elif path.startswith(f"{MOUNT}/"):
        await django({**scope, "root_path": root_path + MOUNT}, receive, send)
    else:
        await respond(send, 404, b"Not here. Try /site/ or /health.\n")


async def lifespan(scope: Message, receive: Receive, send: Send) -> None:
    """Before the first request and after the last: open what is needed, close it.

    What is put into the state is in the scope of every request.
    https://asgi.readthedocs.io/en/latest/specs/lifespan.html
    """
    await receive()
    scope["state"]["started"] = datetime.now(UTC)
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def respond(send: Send, status: int, body: bytes) -> None:
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
