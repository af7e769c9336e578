"""The rules for the head of a request that need no server to be seen."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given, strategies as st

from djasgi.servers.engines.heads import (
    METHODS,
    handshake_problem,
    origin_form,
    problem,
    subprotocols,
    visible,
)

HOST = [(b"host", b"h")]


@given(st.sampled_from(sorted(METHODS)))
def test_every_method_is_one_that_llhttp_knows(method: bytes) -> None:
    class Seen:
        complete = False

        def on_message_complete(self) -> None:
            self.complete = True

    seen = Seen()
    httptools.HttpRequestParser(seen).feed_data(
        method + b" / HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    assert seen.complete
    assert problem(method, b"/", "1.1", HOST) is None


@given(st.binary(max_size=40))
def test_target_that_is_accepted_is_a_path(target: bytes) -> None:
    if problem(b"GET", target, "1.1", HOST) is None:
        path, fields = (
            (target, HOST) if target[:1] == b"/" else origin_form(target, HOST)
        )
        assert path[:1] == b"/"
        assert path.isascii()
        assert not set(path) & set(b" #\r\n\0")
        assert [name for name, _ in fields].count(b"host") == 1


def test_names_that_pretend_are_left_out() -> None:
    fields = [(b"x_a", b""), (b"daphne-root-path", b""), (b"x-a", b"1")]
    assert visible(fields) == [(b"x-a", b"1")]


def test_subprotocols_of_several_fields() -> None:
    name = b"sec-websocket-protocol"
    assert subprotocols([(name, b"a, b,"), (b"x", b"c"), (name, b"d")]) == [*"abd"]


@pytest.mark.parametrize(
    ("extensions", "good"),
    [
        (b"permessage-deflate; client_max_window_bits", True),
        (b'a; b="c"; d=e, f', True),
        (b"a; ;", False),
        (b'a; b="', False),
        (b"", False),
    ],
)
def test_extensions(extensions: bytes, good: bool) -> None:
    fields = [
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"sec-websocket-extensions", extensions),
    ]
    assert (handshake_problem(fields) is None) is good
