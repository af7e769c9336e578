"""Requests that are read at once: only what every parser reads in the same way."""

from __future__ import annotations

from typing import Any

import h11
import httptools
import pytest
from hypothesis import given, strategies as st

from djasgi.servers.engines import plain
from djasgi.servers.engines.plain import Plain, plain_request

MOST = 65_536
HEAD = b"GET /a?b=c HTTP/1.1\r\nHost: example.org\r\nX-Two:\t2 \r\nx-two: 3\r\n\r\n"


def test_head_is_read_as_the_application_sees_it() -> None:
    assert plain_request(HEAD, MOST) == Plain(
        b"GET",
        b"/a?b=c",
        "1.1",
        [(b"host", b"example.org"), (b"x-two", b"2"), (b"x-two", b"3")],
        True,
    )


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False),
    ],
)
def test_connection_goes_on_unless_somebody_ends_it(
    head: bytes, keep_alive: bool
) -> None:
    request = plain_request(head, MOST)
    assert request is not None
    assert request.keep_alive is keep_alive


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEAD[:-1],
        HEAD + b"G",
        HEAD + HEAD,
        b"\r\n" + HEAD,
        HEAD.replace(b"\r\n", b"\n"),
        HEAD.replace(b"GET", b"get"),
        HEAD.replace(b"GET", b"BREW"),
        HEAD.replace(b"GET", b"CONNECT"),
        HEAD.replace(b"/a", b"http://example.org/a"),
        HEAD.replace(b"/a", b"/\xc3\xa4"),
        HEAD.replace(b"/a", b"/a#b"),
        HEAD.replace(b"/a", b"/a b"),
        HEAD.replace(b"/a", b"/a\tb"),
        HEAD.replace(b"1.1", b"1.2"),
        HEAD.replace(b"Host", b"Nost"),
        HEAD.replace(b"x-two", b"host"),
        HEAD.replace(b"x-two:", b"x-two :"),
        HEAD.replace(b"x-two:", b" x-two:"),
        HEAD.replace(b"x-two:", b"x-two"),
        HEAD.replace(b"x-two:", b":"),
        HEAD.replace(b"x-two", b"x_two"),
        HEAD.replace(b"x-two", b"Daphne-Root-Path"),
        HEAD.replace(b"x-two: 3", b"Content-Length: 0"),
        HEAD.replace(b"x-two: 3", b"Transfer-Encoding: chunked"),
        HEAD.replace(b"x-two: 3", b"Expect: 100-continue"),
        HEAD.replace(b"x-two: 3", b"Upgrade: websocket"),
        HEAD.replace(b": 3", b": 3\x00"),
        HEAD.replace(b": 3", b": 3\r"),
        HEAD.replace(b": 3", b": \x7f"),
        HEAD.replace(b"x-two: 3\r\n", b"x-two: 3\r\n" * 600),
    ],
)
def test_anything_else_is_left_to_the_parser(data: bytes) -> None:
    # Once more, since names are remembered.
    assert plain_request(HEAD, MOST) is not None
    assert plain_request(data, MOST) is None
    assert plain_request(data, MOST) is None


def test_head_that_is_too_large_is_left_to_the_parser() -> None:
    assert plain_request(HEAD, len(HEAD)) is not None
    assert plain_request(HEAD, len(HEAD) - 1) is None


def test_long_names_are_read_and_not_remembered() -> None:
    name = b"x" * 1000
    assert plain_request(HEAD.replace(b"x-two", name), MOST) is not None
    assert name not in plain._NAMES


class Seen:
    """What llhttp makes of a request."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.keep_alive = False
        self.is_complete = False
        self.parser = httptools.HttpRequestParser(self)

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.keep_alive = self.parser.should_keep_alive()

    def on_message_complete(self) -> None:
        self.is_complete = True


def read_by_h11(data: bytes) -> tuple[Any, ...]:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    assert isinstance(connection.next_event(), h11.EndOfMessage)
    keep_alive = connection.their_state is h11.DONE
    version = request.http_version.decode()
    return request.method, request.target, version, [*request.headers], keep_alive


def read_by_llhttp(data: bytes) -> tuple[Any, ...]:
    seen = Seen()
    parser = seen.parser
    parser.feed_data(data)
    assert seen.is_complete
    version = parser.get_http_version()
    keep_alive = version == "1.1" and seen.keep_alive
    return parser.get_method(), seen.target, version, seen.fields, keep_alive


PIECES = [
    *(bytes([byte]) for byte in b"\r\n\t :/?%"),
    b"\r\n",
    b"\r\n\r\n",
    b"HTTP/1.1",
    b"Connection: close\r\n",
    b"Host: x\r\n",
]


@st.composite
def nearly_plain(draw: st.DrawFn) -> bytes:
    """The head of a request, with something put in place of a piece of it."""
    head = draw(
        st.sampled_from(
            [
                HEAD,
                b"HEAD /%41 HTTP/1.0\r\nA: b\r\n\r\n",
                b"OPTIONS /x HTTP/1.1\r\nhost:\r\nConnection: close\r\n\r\n",
                b"DELETE /?& HTTP/1.1\r\nHost: a:80\r\nCookie: a=b; c=\xff\r\n\r\n",
            ]
        )
    )
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(head)))
        end = min(len(head), start + draw(st.integers(0, 4)))
        piece = draw(
            st.one_of(
                st.binary(max_size=3),
                st.sampled_from(PIECES),
            )
        )
        head = head[:start] + piece + head[end:]
    return head


@given(nearly_plain())
def test_what_is_read_at_once_is_what_the_parsers_read(data: bytes) -> None:
    request = plain_request(data, MOST)
    if request is not None:
        assert read_by_h11(data) == request
        assert read_by_llhttp(data) == request
