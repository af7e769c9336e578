"""Answers that are djasgi's own, in place of the application's."""

from __future__ import annotations

from http import HTTPStatus

from djasgi.layers.asgi import Scope, Send

Field = tuple[bytes, bytes]

_TEXT = (b"content-type", b"text/plain; charset=utf-8")


async def answer(scope: Scope, send: Send, status: HTTPStatus, *fields: Field) -> None:
    """Send `status` with its phrase as the body, to a request or a handshake.

    Field names of HTTP/1 connections are left out where there is no such connection.
    """
    body = status.phrase.encode()
    headers = [_TEXT, (b"content-length", b"%d" % len(body)), *fields]
    kind = "websocket.http" if scope["type"] == "websocket" else "http"
    if not scope["http_version"].startswith("1"):
        headers = [field for field in headers if field[0] != b"connection"]
    await send(
        {"type": f"{kind}.response.start", "status": int(status), "headers": headers}
    )
    await send({"type": f"{kind}.response.body", "body": body, "more_body": False})
