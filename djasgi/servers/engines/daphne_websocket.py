"""daphne's websocket, which can do what the ASGI specification says it can."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from daphne.ws_protocol import WebSocketProtocol

from djasgi.servers.base import Scope
from djasgi.servers.engines import refusals
from djasgi.servers.engines.heads import Field, subprotocols

SERVICE_RESTART = 1012
_NO_CODE = 1005


class WebSocket(WebSocketProtocol):  # type: ignore[misc]  # daphne is not typed
    """daphne's websocket, which can be told to go."""

    _leaving = False
    _failed_with = 0
    _dropped = False

    def onConnect(self, request: Any) -> Any:  # noqa: N802  # autobahn's name
        self.fields: list[Field] = self.factory.server_class.handshake_of.fields
        self.factory.server_class.handshake = self
        self._denial: dict[str, Any] | None = None
        return super().onConnect(request)

    def consumeData(self) -> None:  # noqa: N802  # autobahn's name
        # Frames that did not wait for the answer; autobahn looks for a head in them.
        if self.state != self.STATE_CONNECTING or not hasattr(self, "fields"):
            super().consumeData()

    def adapt(self, scope: Scope, *, secure: bool) -> None:
        """Give the application the head as it was sent, and what daphne leaves out."""
        scope["headers"] = self.fields
        scope["subprotocols"] = subprotocols(self.fields)
        scope["scheme"] = "wss" if secure else "ws"
        scope["http_version"] = "1.1"
        scope["extensions"] = {"websocket.http.response": {}}

    def handle_reply(self, message: dict[str, Any]) -> None:
        if self._leaving:
            return
        match message["type"]:
            case "websocket.accept":
                self._accept(message.get("subprotocol"), message.get("headers", ()))
            case "websocket.close" if self.state != self.STATE_CONNECTING:
                # Not sendClose, which refuses what only servers may say.
                self.sendCloseFrame(
                    code=message.get("code", 1000),
                    reasonUtf8=(message.get("reason") or "").encode(),
                    isReply=False,
                )
            case "websocket.send":
                text = message.get("text")
                if text is not None:
                    self.serverSend(text)
                else:
                    self.serverSend(message["bytes"], binary=True)
            case "websocket.http.response.start":
                self._denial = message
            case "websocket.http.response.body":
                self._deny(message["body"])
            case _:
                super().handle_reply(message)

    def _accept(self, subprotocol: str | None, headers: Any) -> None:
        options = self.server.options
        fields: dict[str, list[str]] = {}
        names = {name.lower() for name, _ in headers}
        own = [field for field in refusals.own_fields(options) if field[0] not in names]
        for name, value in (*own, *headers):
            fields.setdefault(name.decode("latin-1"), []).append(
                value.decode("latin-1")
            )
        deferred = self.handshake_deferred
        del self.handshake_deferred
        deferred.callback((subprotocol, fields))

    def _deny(self, body: bytes) -> None:
        start = self._denial
        assert start is not None, "the layer has sent it first"  # noqa: S101
        fields = [(name.lower(), value) for name, value in start["headers"]]
        names = {name for name, _ in fields}
        own = [f for f in refusals.own_fields(self.server.options) if f[0] not in names]
        self.sendData(refusals.response(start["status"], [*own, *fields], body))
        del self.handshake_deferred
        self.server.protocol_disconnected(self)
        self.dropConnection(abort=False)

    def serverSend(self, content: Any, binary: bool = False) -> None:  # noqa: N802
        # autobahn applies the limit for received messages to those that are sent.
        limit: int = self.factory.maxMessagePayloadSize
        self.maxMessagePayloadSize = 0
        try:
            super().serverSend(content, binary)
        finally:
            self.maxMessagePayloadSize = limit

    def _fail_connection(self, code: int = 1001, reason: str = "going away") -> None:
        if self.state == self.STATE_OPEN:
            self._failed_with = code
        super()._fail_connection(code, reason)

    def onAutoPingTimeout(self) -> None:  # noqa: N802  # autobahn's name
        # autobahn drops the connection; this does it a moment later.
        self.autoPingTimeoutCall = None
        self.sendCloseFrame(code=1011, isReply=False)

    def dropConnection(self, abort: bool = False) -> None:  # noqa: N802
        # At once, the client would lose the close frame too, and the reason in it.
        careful = bool(self._failed_with) and not self._dropped
        self._dropped = True
        super().dropConnection(abort and not careful)

    def onClose(self, wasClean: bool, code: Any, reason: Any) -> None:  # noqa: N802,N803
        # Past daphne's, which leaves the reason out.
        self.server.protocol_disconnected(self)
        if self.muted or not hasattr(self, "application_queue"):
            return
        if self._failed_with:
            code, reason = self._failed_with, ""
        elif wasClean:
            code, reason = code or _NO_CODE, reason or ""
        else:
            code, reason = 1006, ""
        self.application_queue.put_nowait(
            {"type": "websocket.disconnect", "code": code, "reason": reason}
        )

    def handle_exception(self, exception: BaseException | None) -> None:
        if hasattr(self, "handshake_deferred") or self.state == self.STATE_OPEN:
            self.dropConnection(abort=True)

    def wind_down(self, *, refuse: bool) -> None:
        """Close with 1012; with `refuse` also what the application has not accepted."""
        if self._leaving:
            return
        if self.state == self.STATE_OPEN:
            # Not sendClose: autobahn has it refuse 1012.
            self.sendCloseFrame(code=SERVICE_RESTART, isReply=False)
        elif refuse and hasattr(self, "handshake_deferred"):
            del self.handshake_deferred
            status = HTTPStatus.SERVICE_UNAVAILABLE
            self.sendData(refusals.refusal(status, self.server.options))
            self.server.protocol_disconnected(self)
            self.dropConnection(abort=False)
        else:
            return
        self.muted = self._leaving = True
        self.application_queue.put_nowait(
            {"type": "websocket.disconnect", "code": SERVICE_RESTART}
        )
