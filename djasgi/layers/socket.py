"""A websocket as the application sees it: one set of rules, whichever server it is."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from djasgi.layers.answers import answer
from djasgi.layers.asgi import Message, Receive, Scope, Send

_CLOSE = (b"connection", b"close")

# Close codes of RFC 6455, section 7.4.1.
_NORMAL, _NO_STATUS, _ABNORMAL, _INTERNAL_ERROR = 1000, 1005, 1006, 1011

_MOST_OF_A_REASON = 123
"""Bytes, in UTF-8 (RFC 6455, section 5.5)."""


class Socket:
    """One websocket, from its handshake to its close.

    What the application sends is checked here, so that a mistake is the same exception
    everywhere. A refusal is a response with a length. After a close of the application's
    own it receives its own code, and after a refusal 1006.
    """

    # A drain closes websockets below this layer.
    ended = False
    timer: asyncio.TimerHandle | None = None

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self.start: Message | None = None  # of an answer: accept, close or a response
        self.complete = False  # the application has closed, or refused
        self.gone = False
        self._accepted = False
        self._body = bytearray()
        self._closed_with: tuple[int, str] | None = None

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.gone = True
            code, reason = message.get("code", _NO_STATUS), message.get("reason") or ""
            if self._closed_with is not None:
                code, reason = self._closed_with
            return {"type": "websocket.disconnect", "code": code, "reason": reason}
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if self.complete:
            raise _unexpected(kind)
        if kind == "websocket.send" and self._accepted:
            if (message.get("text") is None) == (message.get("bytes") is None):
                raise RuntimeError("websocket.send takes one of text and bytes.")
            await self._send(message)
        elif kind == "websocket.accept" and self.start is None:
            await self._accept(message)
        elif kind == "websocket.close" and (self._accepted or self.start is None):
            await self._close(message)
        elif kind == "websocket.http.response.start" and self.start is None:
            self.start = message
        elif (
            kind == "websocket.http.response.body"
            and self.start is not None
            and not self._accepted
        ):
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._deny(self.start)
        else:
            raise _unexpected(kind)

    async def _accept(self, message: Message) -> None:
        chosen = message.get("subprotocol")
        if chosen is not None and chosen not in self._scope["subprotocols"]:
            raise RuntimeError(f"The client does not offer the subprotocol {chosen!r}.")
        for name, _ in message.get("headers", ()):
            if name.lower().startswith(b"sec-websocket-"):
                raise RuntimeError(f"{name.decode('latin-1')} is the server's to say.")
        self.start = message
        self._accepted = True
        await self._send(message)

    async def _close(self, message: Message) -> None:
        self.complete = True
        if not self._accepted:
            self.start = message
            self._closed_with = _ABNORMAL, ""
            await self._refuse(HTTPStatus.FORBIDDEN)
            return
        code = message.get("code") or _NORMAL
        reason = _cut(message.get("reason") or "")
        self._closed_with = code, reason
        await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def _deny(self, start: Message) -> None:
        self.complete = True
        self._closed_with = _ABNORMAL, ""
        framing = (b"content-length", b"transfer-encoding", b"connection")
        headers = [
            (name, value)
            for name, value in start.get("headers", ())
            if name.lower() not in framing
        ]
        headers += [(b"content-length", b"%d" % len(self._body)), _CLOSE]
        body = bytes(self._body)
        await self._send({**start, "headers": headers})
        await self._send({"type": "websocket.http.response.body", "body": body})

    async def _refuse(self, status: HTTPStatus) -> None:
        await answer(self._scope, self._send, status, _CLOSE)

    async def fail(self) -> None:
        """End in place of the application, which has not: 500, or a close with 1011."""
        if self.complete or self.gone:
            return
        self.complete = True
        if self._accepted:
            await self._send(
                {"type": "websocket.close", "code": _INTERNAL_ERROR, "reason": ""}
            )
        else:
            await self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR)

    async def finish(self) -> None:
        """Nothing is left."""


def _unexpected(kind: str) -> RuntimeError:
    return RuntimeError(f"Unexpected ASGI message {kind!r}.")


def _cut(reason: str) -> str:
    raw = reason.encode()
    if len(raw) <= _MOST_OF_A_REASON:
        return reason
    return raw[:_MOST_OF_A_REASON].decode(errors="ignore")
