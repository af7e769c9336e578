"""Websocket clients of others, each behind the same few calls.

They frame, mask, reassemble and close by code of their own: what they agree on is the
protocol, not a habit of one library. Those of `websockets` and `wsproto` share theirs
with a server; websocket-client and aiohttp share it with none.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import aiohttp
import websocket
import websockets.sync.client
import wsproto
from wsproto import events

from tests.support.process import TIMEOUT

Data = str | bytes
Closed = tuple[int | None, str]


class Client(Protocol):
    """A connection. The answer to a close is the code and the reason of the server."""

    def send(self, data: Data) -> None: ...
    def send_in_pieces(self, pieces: Sequence[Data]) -> None: ...
    def receive(self) -> Data: ...
    def pong(self, payload: bytes) -> bytes: ...
    def close(self, code: int, reason: str) -> Closed: ...
    def end(self) -> None: ...


class Websockets:
    """The client of websockets, uvicorn's library."""

    def __init__(self, url: str) -> None:
        settings: dict[str, Any] = {"proxy": None, "max_size": None}
        self.stack = ExitStack()
        connecting = websockets.sync.client.connect(url, **settings)
        self.connection = self.stack.enter_context(connecting)

    def send(self, data: Data) -> None:
        self.connection.send(data)

    def send_in_pieces(self, pieces: Sequence[Data]) -> None:
        self.connection.send(pieces)

    def receive(self) -> Data:
        data: Data = self.connection.recv(TIMEOUT)
        return data

    def pong(self, payload: bytes) -> bytes:
        answered = self.connection.ping(payload)  # of this payload
        assert answered.wait(TIMEOUT)
        return payload

    def close(self, code: int, reason: str) -> Closed:
        self.connection.close(code, reason)
        received = self.connection.protocol.close_rcvd
        return (received.code, received.reason) if received else (None, "")

    def end(self) -> None:
        self.stack.close()


class Wsproto:
    """wsproto, hypercorn's library, over a socket."""

    def __init__(self, url: str) -> None:
        host = url.removeprefix("ws://").rstrip("/")
        name, _, port = host.partition(":")
        self.sock = socket.create_connection((name, int(port)), TIMEOUT)
        self.protocol = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._do(events.Request(host=host, target="/"))
        assert isinstance(self._next(), events.AcceptConnection)

    def _do(self, event: Any) -> None:
        self.sock.sendall(self.protocol.send(event))

    def _next(self) -> Any:
        while True:
            for event in self.protocol.events():
                return event
            self.protocol.receive_data(self.sock.recv(65_536) or None)

    def _message(self, data: Data, finished: bool) -> Any:
        kind: Any = events.TextMessage if isinstance(data, str) else events.BytesMessage
        return kind(data=data, message_finished=finished)

    def send(self, data: Data) -> None:
        self._do(self._message(data, finished=True))

    def send_in_pieces(self, pieces: Sequence[Data]) -> None:
        for number, piece in enumerate(pieces, 1):
            self._do(self._message(piece, finished=number == len(pieces)))

    def receive(self) -> Data:
        whole: Any = None
        while True:
            event = self._next()
            assert isinstance(event, events.Message), event
            whole = event.data if whole is None else whole + event.data
            if event.message_finished:
                return bytes(whole) if isinstance(whole, bytearray) else whole

    def pong(self, payload: bytes) -> bytes:
        self._do(events.Ping(payload=payload))
        event = self._next()
        assert isinstance(event, events.Pong), event
        return bytes(event.payload)

    def close(self, code: int, reason: str) -> Closed:
        self._do(events.CloseConnection(code=code, reason=reason))
        event = self._next()
        assert isinstance(event, events.CloseConnection), event
        assert self.sock.recv(1) == b""
        return event.code, event.reason or ""

    def end(self) -> None:
        self.sock.close()


class WebsocketClient:
    """websocket-client."""

    def __init__(self, url: str) -> None:
        self.connection = websocket.create_connection(url, timeout=TIMEOUT)

    def send(self, data: Data) -> None:
        self.send_in_pieces([data])

    def send_in_pieces(self, pieces: Sequence[Data]) -> None:
        frame = websocket.ABNF
        kind = frame.OPCODE_TEXT if isinstance(pieces[0], str) else frame.OPCODE_BINARY
        for number, piece in enumerate(pieces, 1):
            opcode = kind if number == 1 else frame.OPCODE_CONT
            fin = int(number == len(pieces))
            data = piece.encode() if isinstance(piece, str) else piece
            self.connection.send_frame(frame.create_frame(data, opcode, fin))

    def receive(self) -> Data:
        opcode, data = self.connection.recv_data()
        if opcode == websocket.ABNF.OPCODE_TEXT:
            return bytes(data).decode()
        assert opcode == websocket.ABNF.OPCODE_BINARY, opcode
        return bytes(data)

    def _control(self, opcode: int) -> bytes:
        received, data = self.connection.recv_data(control_frame=True)
        assert received == opcode, (received, data)
        return bytes(data)

    def pong(self, payload: bytes) -> bytes:
        self.connection.send(payload, websocket.ABNF.OPCODE_PING)
        return self._control(websocket.ABNF.OPCODE_PONG)

    def close(self, code: int, reason: str) -> Closed:
        self.connection.send_close(code, reason.encode())
        data = self._control(websocket.ABNF.OPCODE_CLOSE)
        return int.from_bytes(data[:2], "big"), data[2:].decode()

    def end(self) -> None:
        self.connection.shutdown()


class Aiohttp:
    """aiohttp's client; of pieces it knows nothing, and sends them as one."""

    def __init__(self, url: str) -> None:
        self.runner = asyncio.Runner()
        self.runner.run(self._connect(url))

    async def _connect(self, url: str) -> None:
        self.session = aiohttp.ClientSession()
        self.connection = await self.session.ws_connect(
            url, autoping=False, autoclose=False, max_msg_size=0
        )

    def _receive(self, kind: aiohttp.WSMsgType) -> Any:
        message = self.runner.run(self.connection.receive(TIMEOUT))
        assert message.type is kind, message
        return message

    def send(self, data: Data) -> None:
        if isinstance(data, str):
            self.runner.run(self.connection.send_str(data))
        else:
            self.runner.run(self.connection.send_bytes(data))
        self._kind = type(data)

    def send_in_pieces(self, pieces: Sequence[Any]) -> None:
        self.send(pieces[0][:0].join(pieces))

    def receive(self) -> Data:
        text = self._kind is str
        kind = aiohttp.WSMsgType.TEXT if text else aiohttp.WSMsgType.BINARY
        data: Data = self._receive(kind).data
        return data

    def pong(self, payload: bytes) -> bytes:
        self.runner.run(self.connection.ping(payload))
        return bytes(self._receive(aiohttp.WSMsgType.PONG).data)

    def close(self, code: int, reason: str) -> Closed:
        self.runner.run(self.connection.close(code=code, message=reason.encode()))
        return self.connection.close_code, reason  # which it does not keep

    def end(self) -> None:
        self.runner.run(self.session.close())
        self.runner.close()


CLIENTS: dict[str, Callable[[str], Client]] = {
    "websockets": Websockets,
    "wsproto": Wsproto,
    "websocket-client": WebsocketClient,
    "aiohttp": Aiohttp,
}


class Connected:
    """A client for as long as a test. A context manager."""

    def __init__(self, name: str, url: str) -> None:
        self.client = CLIENTS[name](url)

    def __enter__(self) -> Client:
        return self.client

    def __exit__(self, *exception: object) -> None:
        self.client.end()
