"""One record on the logger `djasgi.access` for each response and each websocket."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from time import perf_counter
from typing import Any
from urllib.parse import quote

from djasgi import records
from djasgi.layers.asgi import App, Message, Receive, Scope, Send
from djasgi.layers.peers import TrustedPeers

_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))
_PATH_SAFE = "/!$&'()*+,;=:@~"  # pchar (RFC 3986, section 3.3)
_PLAIN = re.compile(rb"[\x21-\x3e\x40-\x7e]+")
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,40}")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")

# As nginx logs a client that went away before it was answered.
_CLIENT_CLOSED_REQUEST = 499
# Close codes of RFC 6455, section 7.4.1.
_NORMAL, _NO_STATUS, _ABNORMAL, _INTERNAL_ERROR = 1000, 1005, 1006, 1011


class AccessLog:
    """Logs each response when its last byte is handed over, at INFO.

    Attributes of a record: `client` (an address, None on a unix socket), `method`
    (`WS` for a websocket), `path` (as the client sent it, percent-encoded, with the
    root path, without the query), `status`, `bytes` (of the body), `duration`
    (milliseconds), `http_version`, `scheme`, `request_id` and `event`: `response`, or
    `open` and `close` for a websocket, whose status is 101 and then the close code.
    A client that goes away before the response has status 499, an application that
    raises before it 500.

    The request id is that of `X-Request-ID` when the peer that connected is in
    `trusted` and it is plain (letters, digits, `._-`, at most 128); else it is made.
    """

    def __init__(self, app: App, trusted: Sequence[str] | None = None) -> None:
        """`trusted` as for `ProxyHeaders`; with None no peer is believed."""
        self.app = app
        self.peers = None if trusted is None else TrustedPeers(trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket") or not records.is_enabled():
            await self.app(scope, receive, send)
            return
        exchange = (_Response if kind == "http" else _WebSocket)(
            scope, receive, send, self._request_id(scope)
        )
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            exchange.cancelled()
            raise
        except BaseException:
            exchange.raised()
            raise
        exchange.returned()

    def _request_id(self, scope: Scope) -> str:
        if self.peers is not None and self.peers.trusts_peer(scope):
            for name, value in scope["headers"]:
                if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                    return bytes(value).decode("ascii")
        # Neither a counter nor a seed, which forked workers would share.
        return os.urandom(16).hex()


class _Exchange:
    """What the record of one connection needs, noted as the messages pass."""

    __slots__ = ("_receive", "_send", "bytes", "fields", "logged", "started")

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, request_id: str
    ) -> None:
        self.started = perf_counter()
        self._receive = receive
        self._send = send
        self.bytes = 0
        self.logged = False
        client = scope.get("client")
        # Taken now: applications change the scope while they route.
        self.fields: dict[str, Any] = {
            "client": client[0] if client else None,
            "method": "WS",
            "path": _path(scope),
            "http_version": scope.get("http_version", "1.1"),
            "scheme": scope.get("scheme"),
            "request_id": request_id,
        }

    def log(self, event: str, status: int, words: str) -> None:
        fields = self.fields
        fields["event"] = event
        fields["status"] = status
        fields["bytes"] = self.bytes
        fields["duration"] = round((perf_counter() - self.started) * 1e3, 3)
        records.emit(fields, words)


class _Response(_Exchange):
    __slots__ = ("bodiless", "gone", "status")

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, request_id: str
    ) -> None:
        super().__init__(scope, receive, send, request_id)
        method = scope["method"]
        self.fields["method"] = method if _METHOD.fullmatch(method) else "-"
        self.bodiless = method == "HEAD"
        self.gone = False
        self.status: int | None = None

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone = True
        return message

    async def send(self, message: Message) -> None:
        await self._send(message)
        kind = message["type"]
        if kind == "http.response.body":
            if not self.bodiless:
                self.bytes += len(message.get("body", b""))
            if not message.get("more_body", False):
                self.finish(500)
        elif kind == "http.response.start":
            self.status = message["status"]

    def finish(self, otherwise: int) -> None:
        """Log once, with the status that was sent, or else `otherwise`."""
        if not self.logged:
            self.logged = True
            status = otherwise if self.status is None else self.status
            self.log("response", status, str(status))

    def cancelled(self) -> None:
        self.finish(_CLIENT_CLOSED_REQUEST)

    def returned(self) -> None:
        self.finish(_CLIENT_CLOSED_REQUEST if self.gone else 500)

    raised = returned


class _WebSocket(_Exchange):
    __slots__ = ("accepted", "denied")

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, request_id: str
    ) -> None:
        super().__init__(scope, receive, send, request_id)
        self.accepted = False
        self.denied = 403

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            code = message.get("code", _NO_STATUS)
            self.close(code if self.accepted else _CLIENT_CLOSED_REQUEST)
        return message

    async def send(self, message: Message) -> None:
        await self._send(message)
        kind = message["type"]
        if kind == "websocket.send":
            text = message.get("text")
            data = message.get("bytes") if text is None else text.encode()
            self.bytes += len(data or b"")
        elif kind == "websocket.accept":
            self.accepted = True
            self.log("open", 101, "open")
        elif kind == "websocket.close":
            self.close(message.get("code", _NORMAL) if self.accepted else 403)
        elif kind == "websocket.http.response.start":
            self.denied = message["status"]
        elif kind == "websocket.http.response.body":
            self.bytes += len(message.get("body", b""))
            if not message.get("more_body", False):
                self.close(self.denied)

    def close(self, status: int) -> None:
        """Log once: the close code, or the status if there was no handshake."""
        if not self.logged:
            self.logged = True
            self.log("close", status, f"closed {status}")

    def cancelled(self) -> None:
        self.close(_ABNORMAL if self.accepted else _CLIENT_CLOSED_REQUEST)

    def returned(self) -> None:
        self.close(_INTERNAL_ERROR if self.accepted else 500)

    raised = returned


def _path(scope: Scope) -> str:
    """The path as the client sent it: printable ASCII without spaces, no query.

    `raw_path` is optional (ASGI specification, HTTP connection scope).
    """
    raw = scope.get("raw_path")
    if raw is None:
        return quote(scope["path"], safe=_PATH_SAFE, errors="backslashreplace")
    if _PLAIN.fullmatch(raw):
        return str(raw, "ascii")
    return quote(bytes(raw).partition(b"?")[0], safe=_PRINTABLE)
