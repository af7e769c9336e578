"""What is the same of HTTP/2 (RFC 9113) on the servers that speak it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from http import HTTPStatus

from hyperframe.frame import GoAwayFrame

from djasgi.options import Options
from djasgi.servers.engines import refusals
from djasgi.servers.engines.heads import Field, origin_form, problem

_OF_A_CONNECTION = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""Fields that HTTP/2 does not have (RFC 9113, section 8.2.2)."""

ROOM = 65_536
"""Bytes over the limit of a head that are still read, to be able to answer with 431."""

_RESETS = 200
_RESETS_PER_SECOND = 33


class Head:
    """The head of a request, in the form that HTTP/1 has."""

    def __init__(self, pseudo_and_fields: Sequence[Field], options: Options) -> None:
        self.method = self.target = self.scheme = b""
        fields: list[Field] = []
        hosts: list[bytes] = []
        cookies: list[bytes] = []
        for name, value in pseudo_and_fields:
            match name:
                case b":method":
                    self.method = value
                case b":path":
                    self.target = value
                case b":authority":
                    hosts.insert(0, value)
                case b"host":
                    hosts.append(value)
                case b"cookie":
                    cookies.append(value)
                case _ if name[:1] != b":":
                    fields.append((name, value))
        if cookies:  # RFC 9113, section 8.2.3
            fields.append((b"cookie", b"; ".join(cookies)))
        self.fields = [*((b"host", host) for host in hosts[:1]), *fields]
        size = sum(len(name) + len(value) + 4 for name, value in pseudo_and_fields)
        self.problem = (
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            if size > options.max_head_size
            else problem(self.method, self.target, "1.1", self.fields)
        )
        if self.problem is None and self.target[:1] != b"/":
            self.target, self.fields = origin_form(self.target, self.fields)


def response_fields(
    status: int, headers: Sequence[Field], options: Options
) -> list[Field]:
    """The fields of a response, the status among them."""
    fields = [(name.lower(), value) for name, value in headers]
    names = {name for name, _ in fields}
    own = [field for field in refusals.own_fields(options) if field[0] not in names]
    rest = [field for field in fields if field[0] not in _OF_A_CONNECTION]
    return [(b":status", b"%d" % status), *rest, *own]


def refusal(status: HTTPStatus, options: Options) -> tuple[list[Field], bytes]:
    """The response to a request that is refused."""
    body = status.phrase.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
    ]
    return response_fields(status, headers, options), body


class Resets:
    """How many streams of a connection may still be reset before their answer is there.

    It costs a client nothing to open a stream and reset it, or to have it reset, and
    there are never many open; but each starts an application (CVE-2023-44487,
    CVE-2025-8671). A bucket that fills with time, as nghttp2 and Twisted have, but with
    200 in it, as in Netty, and not 1000: twice the streams that are open at once, for
    whoever leaves two pages before they are there. An answer puts one back: behind a
    proxy are many who leave, among more who do not.
    """

    def __init__(self) -> None:
        self._left: float = _RESETS
        self._time = time.monotonic()

    def answered(self) -> None:
        self._left = min(self._left + 1, _RESETS)

    def one_more(self) -> bool:
        """Whether it is not too many; if it is, RFC 9113 has a word for it (section 7)."""
        now = time.monotonic()
        filled = self._left + (now - self._time) * _RESETS_PER_SECOND
        self._time = now
        self._left = min(filled, _RESETS) - 1
        return self._left >= 0


def notice() -> bytes:
    """Tells the client to begin nothing more; what it has begun goes on (section 6.8)."""
    frame = GoAwayFrame(0)
    frame.last_stream_id = 2**31 - 1
    return bytes(frame.serialize())
