"""asyncio's transports and listeners, closed so that nothing is lost."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from djasgi.servers.engines.draining import CLOSING, settle, unacknowledged


async def stop_accepting(
    servers: Sequence[asyncio.Server], sockets: Sequence[socket.socket]
) -> None:
    """Close `servers`, which listen on `sockets`, once they have what they accepted."""
    loop = asyncio.get_running_loop()
    for sock in sockets:
        loop.remove_reader(sock)  # uvloop accepts on, and loses nothing
    await settle()
    for server in servers:
        server.close()
    await settle()


def close_after_response(transport: asyncio.Transport) -> None:
    """Close a connection whose client may still be sending (RFC 9112, section 9.6).

    To close at once resets the connection if there is something to read, and the client
    may lose the end of the response. TLS waits for the client by itself.
    """
    if transport.is_closing():
        return
    if transport.can_write_eof():
        _Closing(transport)
    else:
        transport.close()
        abort_later(transport)


def reset(transport: asyncio.Transport) -> None:
    """Drop a connection so that its client cannot take it for an orderly end."""
    number = transport.get_extra_info("socket").fileno()
    # Of a copy: uvloop's may not be touched.
    with suppress(OSError), socket.socket(fileno=os.dup(number)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class Transport:
    """A transport that is closed by `close_after_response` when a drain has begun."""

    def __init__(self, inner: asyncio.Transport, draining: Callable[[], bool]) -> None:
        self.inner = inner
        self.write = inner.write  # with each response: not by way of __getattr__
        self.is_cut_short = (
            False  # where the end of the connection says that all is said
        )
        self.has_unread = False  # of a request that was answered before its end
        self._draining = draining
        self._closed = False

    def close(self) -> None:
        if self.is_cut_short:
            self.cut()
        elif self.has_unread or self._draining():
            self.close_after_response()
        elif not self.inner.is_closing():
            self.inner.close()

    def close_after_response(self) -> None:
        if not self._closed:
            self._closed = True
            close_after_response(self.inner)

    def cut(self) -> None:
        """End a response that is not complete, so that nobody takes it for complete."""
        self._closed = True
        if not self.inner.is_closing():
            reset(self.inner)

    def is_closing(self) -> bool:
        return self._closed or self.inner.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class _Closing(asyncio.Protocol):
    """In place of a protocol that has said all; what still comes is forgotten."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._before: Any = transport.get_protocol()
        transport.set_protocol(self)
        transport.resume_reading()
        transport.write_eof()
        abort_later(transport)

    def data_received(self, data: bytes) -> None:
        pass

    def pause_writing(self) -> None:
        self._before.pause_writing()

    def resume_writing(self) -> None:
        self._before.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._before.connection_lost(exc)


def abort_later(transport: asyncio.Transport) -> None:
    """Drop a connection that its peer does not close, though it has got everything."""
    loop = asyncio.get_running_loop()
    sock = transport.get_extra_info("socket")

    def look() -> None:
        if transport.get_write_buffer_size() or unacknowledged(sock):
            loop.call_later(CLOSING, look)
        else:
            transport.abort()

    loop.call_later(CLOSING, look)
