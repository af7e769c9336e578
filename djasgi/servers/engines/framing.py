"""How a response of HTTP/1 is written: one set of rules, whichever server sends it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container, Iterable

from djasgi.options import Options
from djasgi.servers.engines.heads import NOT_IN_A_LINE, TOKEN, Field, remember, tokens
from djasgi.servers.engines.refusals import own_fields, phrase

_COPIED = 65_536
"""Bytes of a body that are copied behind the head, at most, to be one write with it."""

_BODILESS = (204, 304)

_STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, phrase(status))
    for status in range(100, 600)
}

_LENGTH, _CODING = b"content-length: ", b"transfer-encoding: "
_OWN = (b"date: ", b"server: ")
_TELLING = frozenset((_LENGTH, _CODING, b"connection: ", *_OWN))
"""Beginnings of the lines that say something to whoever makes the head."""

_NAMES: dict[bytes, bytes] = {}
"""How the line of a field begins, by the name that applications give. They are few."""


class Response:
    """The framing of one response (RFC 9112, section 6).

    A part of what a server has for a request: an object beside it would cost more than
    the rules do. The messages come in the order of the ASGI specification; the layer
    `djasgi.layers.requests` has seen to that.
    """

    keep_alive = True
    """Whether the connection goes on after this response. `begin` may end that."""
    to_the_end = False
    """Whether the end of the connection is that of the response."""
    held = b""
    """The head, until the body begins or the loop has turned."""
    _is_chunked = False
    _is_bodiless = False
    _left = 0

    def begin(
        self,
        status: int,
        headers: Iterable[Field],
        method: str,
        version: str,
        heads: Heads,
    ) -> None:
        """Make the head, in `held`. Raises RuntimeError for what must not be in one."""
        fields = [*headers]  # perhaps an iterator
        if NOT_IN_A_LINE.search(b"".join([value for _, value in fields])):
            raise RuntimeError("Invalid HTTP header value.")
        before = heads.lines
        lines: list[bytes] = []
        length: int | None = None
        says_close = False
        for given, value in fields:
            begin = _NAMES.get(given) or _beginning(given)
            if begin in _TELLING:
                if begin == _LENGTH:
                    length = int(value) if length is None else length
                elif begin == _CODING:
                    continue  # the framing is ours
                elif begin in _OWN:  # the application's stands alone
                    before = heads.without({name.lower() for name, _ in fields})
                elif b"close" in tokens(b"connection", ((b"connection", value),)):
                    self.keep_alive = False
                    says_close = True
            lines += (begin, value, b"\r\n")
        if status in _BODILESS or method == "HEAD":
            self._is_bodiless = True
        elif length is not None:
            self._left = length
        elif version == "1.0":
            self.to_the_end = True
        else:
            self._is_chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        if not (self.keep_alive or says_close):
            lines.append(b"connection: close\r\n")
        self.held = b"".join((_STATUS_LINES[status], before, *lines, b"\r\n"))

    def write_body(self, body: bytes, more_body: bool) -> None:
        """Send a piece of the body. Raises RuntimeError if it is longer than was said."""
        data = self._framed(body, more_body)
        if self.held:
            if len(data) > _COPIED:
                self.write_held()
            else:
                data = self.held + data
                self.held = b""
        if data:
            self.transmit(data)

    def _framed(self, body: bytes, more_body: bool) -> bytes:
        if self._is_bodiless:
            return b""
        if self._is_chunked:
            chunk = (b"%x\r\n" % len(body), body, b"\r\n") if body else ()
            return b"".join((*chunk, b"" if more_body else b"0\r\n\r\n"))
        if not self.to_the_end:
            self._left -= len(body)
            if self._left < 0:
                raise RuntimeError("Response content longer than Content-Length")
        return body

    def check_length(self) -> None:
        """The body is over. Raises RuntimeError if it is shorter than was said."""
        if self._left:
            raise RuntimeError("Response content shorter than Content-Length")

    def write_held(self) -> None:
        """Send the head, without waiting for a body."""
        head, self.held = self.held, b""
        self.transmit(head)

    def transmit(self, data: bytes) -> None:
        """Send `data`, if the connection is there."""
        raise NotImplementedError


class Heads:
    """What heads of responses begin with; and when they leave, if no body comes.

    They leave with the turn of the loop: one write with the body, which mostly comes at
    once, costs half of two.
    """

    def __init__(self, options: Options) -> None:
        self.fields: list[Field] = []
        self.lines = b""
        """The same, as they are sent."""
        self._options = options
        self._held: list[Response] = []

    async def renew(self) -> None:
        """Keep the Date field current, which has a resolution of one second."""
        while True:
            self.fields[:] = own_fields(self._options)
            self.lines = self.without(())
            await asyncio.sleep(1 - time.time() % 1)

    def without(self, names: Container[bytes]) -> bytes:
        """The lines of `fields` with other names than these."""
        fields = [field for field in self.fields if field[0] not in names]
        return b"".join([b"%b: %b\r\n" % field for field in fields])

    def hold(self, response: Response) -> None:
        if not self._held:
            asyncio.get_running_loop().call_soon(self._write)
        self._held.append(response)

    def _write(self) -> None:
        held, self._held = self._held, []
        for response in held:
            if response.held:
                response.write_held()


def _beginning(name: bytes) -> bytes:
    """How the line of a field begins. Raises RuntimeError for no token (RFC 9110)."""
    if not TOKEN.fullmatch(name):
        raise RuntimeError("Invalid HTTP header name.")
    begin = name.lower() + b": "
    remember(_NAMES, name, begin)
    return begin
