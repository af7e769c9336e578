"""A client of HTTP/2, over TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import h2.config
import h2.connection
import h2.events
from hyperframe.frame import GoAwayFrame

from tests.support.process import TIMEOUT

Field = tuple[bytes, bytes]


@dataclass
class Stream:
    headers: list[Field] = field(default_factory=list)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(dict(self.headers)[b":status"])


class Client:
    """One connection. A context manager."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext) -> None:
        context.set_alpn_protocols(["h2", "http/1.1"])
        self.sock: ssl.SSLSocket = context.wrap_socket(
            plain, server_hostname="localhost"
        )
        assert self.sock.selected_alpn_protocol() == "h2"
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self.connection = h2.connection.H2Connection(config)
        # A client of h2 that is told to go gives up what it has begun.
        self.connection._frame_dispatch_table[GoAwayFrame] = self._take_notice
        self.connection.initiate_connection()
        self.streams: dict[int, Stream] = {}
        self.closed = False
        self.told_to_go: list[Any] = []
        self.flush()

    def _take_notice(self, frame: Any) -> tuple[list[Any], list[Any]]:
        self.told_to_go.append((frame.error_code, frame.last_stream_id))
        return [], []

    def flush(self) -> None:
        self.sock.sendall(self.connection.data_to_send())

    def request(self, path: str = "/", *fields: Field, **more: Any) -> int:
        stream_id = self.begin(path, *fields, **more)
        self.flush()
        return stream_id

    def begin(
        self,
        path: str = "/",
        *fields: Field,
        method: str = "GET",
        body: bytes | None = None,
        end: bool = True,
    ) -> int:
        """What `request` does, not sent yet."""
        stream_id = self.connection.get_next_available_stream_id()
        head = [
            (b":method", method.encode()),
            (b":scheme", b"https"),
            (b":authority", b"localhost"),
            (b":path", path.encode()),
            *fields,
        ]
        self.streams[stream_id] = Stream()
        self.connection.send_headers(stream_id, head, end_stream=end and body is None)
        if body is not None:
            self.connection.send_data(stream_id, body, end_stream=end)
        return stream_id

    def upload(self, stream_id: int, size: int, *, end: bool = True) -> int:
        """Send so many bytes, or as many as there is room for; what is left."""
        self.sock.settimeout(0.5)
        try:
            while size:
                room = self.connection.local_flow_control_window(stream_id)
                if room <= 0:
                    self.read()
                    continue
                most = self.connection.max_outbound_frame_size
                piece = bytes(min(size, room, most))
                self.connection.send_data(stream_id, piece)
                self.flush()
                size -= len(piece)
        except TimeoutError:
            return size
        finally:
            self.sock.settimeout(TIMEOUT)
        if end:
            self.connection.end_stream(stream_id)
            self.flush()
        return 0

    def read(self) -> None:
        """Take what comes next."""
        data = self.sock.recv(65_536)
        if not data:
            self.closed = True
            return
        for event in self.connection.receive_data(data):
            self.take(event)
        self.flush()

    def take(self, event: Any) -> None:
        match event:
            case h2.events.ResponseReceived():
                self.streams[event.stream_id].headers = list(event.headers or ())
            case h2.events.DataReceived():
                self.streams[event.stream_id].body += event.data or b""
                self.connection.acknowledge_received_data(
                    event.flow_controlled_length or 0, event.stream_id
                )
            case h2.events.StreamEnded():
                self.streams[event.stream_id].ended = True
            case h2.events.StreamReset():
                self.streams[event.stream_id].reset = event.error_code

    def answer(self, stream_id: int) -> Stream:
        """Wait for the end of a response."""
        stream = self.streams[stream_id]
        while not stream.ended and stream.reset is None:
            assert not self.closed, "closed before the end of the response"
            self.read()
        return stream

    def get(self, path: str = "/", *fields: Field, **more: Any) -> Stream:
        return self.answer(self.request(path, *fields, **more))

    def until_closed(self) -> Sequence[Any]:
        while not self.closed:
            self.read()
        return self.told_to_go

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.sock.close()
