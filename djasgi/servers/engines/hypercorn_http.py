"""HTTP/1 and what an application sees of it, on hypercorn."""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import h11
from h11._receivebuffer import ReceiveBuffer
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.events import Closed, RawData
from hypercorn.protocol.events import Request, Response
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import HTTPStream

from djasgi.options import Options
from djasgi.servers.engines import refusals
from djasgi.servers.engines.heads import (
    handshake_problem,
    origin_form,
    problem,
    subprotocols,
    visible,
    wants_websocket,
)
from djasgi.servers.engines.hypercorn_websocket import WebSocket

_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n)|\n[ \t]")
"""What a head must not have: control characters, a bare LF or CR, a folded line."""

_LENGTH = re.compile(rb"(?i)\ncontent-length:[ \t]*([^\r]*?)[ \t]*\r")
_CODING = re.compile(rb"(?i)\ntransfer-encoding:")
_CHUNK = re.compile(rb"[0-9A-Fa-f]{1,16}(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_FRAMING = (b"transfer-encoding",)


class Buffer(ReceiveBuffer):
    """h11's buffer, which lets less pass than h11."""

    def __init__(self, connection: h11.Connection, max_head_size: int) -> None:
        super().__init__()
        self._connection = connection
        self._max_head_size = max_head_size

    def maybe_extract_lines(self) -> list[bytearray] | None:
        data = self._data
        if self._connection.their_state is h11.IDLE:
            while data[:2] == b"\r\n":
                del data[:2]  # RFC 9112, section 2.2
            if data == b"\r":
                return None
        searched = max(0, self._multiple_lines_search - 2)
        if data[:2] == b"\r\n":
            return super().maybe_extract_lines()
        end = data.find(b"\r\n\r\n", searched)
        size = end + 4 if end >= 0 else len(data)
        if size > self._max_head_size:
            raise h11.RemoteProtocolError("head too large", error_status_hint=431)
        if end < 0:
            if _CONTROL.search(data.rstrip(b"\r"), searched):
                raise h11.RemoteProtocolError("no line of a head")
            self._multiple_lines_search = max(0, len(data) - 4)
            return None
        head = self._extract(size)
        if _CONTROL.search(head):
            raise h11.RemoteProtocolError("control character in a head")
        if len(_CODING.findall(head)) > 1:
            raise h11.RemoteProtocolError("more than one Transfer-Encoding")
        lengths = _LENGTH.findall(head)
        # h11 takes several that agree for one.
        if len(lengths) > 1 or (lengths and not lengths[0].isdigit()):
            raise h11.RemoteProtocolError("more than one Content-Length")
        return head[:-4].split(b"\r\n")

    def maybe_extract_next_line(self) -> bytearray | None:
        line = super().maybe_extract_next_line()
        if line is not None and not _CHUNK.fullmatch(line) and line != b"\r\n":
            raise h11.RemoteProtocolError("no chunk size")
        return line

    def is_next_line_obviously_invalid_request_line(self) -> bool:
        return (
            self._data != b"\r"
            and super().is_next_line_obviously_invalid_request_line()
        )


class Http(h11.Connection):
    """h11's connection, whose response to HEAD says nothing of how a body is framed."""

    def __init__(self, max_head_size: int) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=max_head_size)
        self._receive_buffer = Buffer(self, max_head_size)

    def next_event(self) -> Any:
        if self.their_state is h11.MUST_CLOSE:
            # What comes after the last request is not answered; h11 complains of it
            # before that request is answered.
            self._receive_buffer.maybe_extract_at_most(len(self._receive_buffer))
        return super().next_event()

    def _clean_up_response_headers_for_sending(
        self, response: h11.Response
    ) -> h11.Response:
        response = super()._clean_up_response_headers_for_sending(response)
        if self._request_method == b"HEAD":
            response = h11.Response(
                status_code=response.status_code,
                headers=[
                    field for field in response.headers if field[0] not in _FRAMING
                ],
                reason=response.reason,
            )
        return response


class Http1(H11Protocol):
    """hypercorn's side of a connection with HTTP/1."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.options: Options = self.config.options  # type: ignore[attr-defined]
        self.refused = False
        self.connection = Http(self.options.max_head_size)

    async def stream_send(self, event: Any) -> None:
        if isinstance(event, Response) and event.status_code >= HTTPStatus.OK:
            await self._send_start(event)
        else:
            await super().stream_send(event)

    async def _send_start(self, event: Response) -> None:
        fields = [f for f in event.headers if f[0].lower() not in _FRAMING]
        names = {name.lower() for name, _ in fields}
        fields += [f for f in self.config.response_headers("h11") if f[0] not in names]
        if (
            self.keep_alive_requests >= self.config.keep_alive_max_requests
            or getattr(self.connection, "their_state", None) is h11.SEND_BODY
        ):
            # In the second case, what is left of the request is not waited for.
            fields = [f for f in fields if f[0].lower() != b"connection"]
            fields.append((b"connection", b"close"))
        await self._send_h11_event(
            h11.Response(
                status_code=event.status_code,
                headers=fields,
                reason=refusals.phrase(event.status_code),
            )
        )

    async def _check_protocol(self, event: h11.Request) -> None:
        """In place of hypercorn's change to cleartext HTTP/2, which cannot be denied."""

    async def _create_stream(self, request: h11.Request) -> None:
        fields = list(request.headers)
        version = request.http_version.decode()
        target = request.target
        found = problem(request.method, target, version, fields)
        websocket = wants_websocket(request.method, version, fields)
        if found is None and websocket:
            found = handshake_problem(fields)
        if found is not None:
            await self._send_error_response(found)
            await self.send(Closed())
            return
        fields = visible(fields)
        if target[:1] != b"/":
            target, fields = origin_form(target, fields)
        make: Callable[..., Any] = WebSocket if websocket else HTTPStream
        self.stream = stream = make(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        if websocket:
            self.connection = H11WSConnection(self.connection)  # type: ignore[arg-type]
        await stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=fields,
                http_version=version,
                method=request.method.decode("ascii"),
                raw_path=target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1

    async def _send_error_response(self, status_code: int) -> None:
        status = HTTPStatus(status_code)
        self.refused = True
        refusals.log(status, self.client, "https" if self.ssl else "http", self.options)
        await self.send(RawData(data=refusals.refusal(status, self.options)))


class Wrapper(ASGIWrapper):
    """hypercorn's call of the application, with the scope that the others give it."""

    async def __call__(self, scope: Any, receive: Any, send: Any, *_: Any) -> None:
        adapt(scope)
        await self.app(scope, receive, send)


def adapt(scope: Any) -> None:
    """Take from `scope` what only hypercorn has, and add what it does not read."""
    scope["asgi"] = {"version": "3.0", "spec_version": "2.3"}
    if scope["type"] == "http":
        del scope["extensions"]
    else:
        scope["subprotocols"] = subprotocols(scope["headers"])
