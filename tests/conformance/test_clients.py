"""Websocket clients that others have written, and Channels' consumers: they agree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from djasgi.options import SERVERS
from tests.support.clients import CLIENTS, Client, Connected
from tests.support.server import Server, copy_project

SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, 1_000_000]
"""Around each change of a frame's length field (RFC 6455, section 5.2)."""

CODES = [(1000, ""), (1000, "bye"), (1001, "away"), (3000, "x" * 123), (4999, "\u20ac")]


@pytest.fixture(scope="module", params=SERVERS)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    root = copy_project("echo", tmp_path_factory.mktemp("clients"))
    arguments = ("app.py:application", "--server", request.param)
    with Server(root, *arguments) as process:
        yield process.ready()
        assert process.stop() == 0
        assert not process.matches(" ERROR ")


@pytest.fixture(params=CLIENTS)
def name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@contextmanager
def connected(site: Server, name: str) -> Iterator[Client]:
    with Connected(name, f"ws://127.0.0.1:{site.port}/") as client:
        yield client


def test_messages_of_all_sizes(site: Server, name: str) -> None:
    with connected(site, name) as client:
        for size in SIZES:
            text = ("\U0001f600" * (size // 4)) + "x" * (size % 4)
            client.send(text)
            assert client.receive() == text
            data = bytes(number % 256 for number in range(size))
            client.send(data)
            assert client.receive() == data
        assert client.close(1000, "")[0] == 1000


def test_messages_in_pieces(site: Server, name: str) -> None:
    with connected(site, name) as client:
        client.send_in_pieces(["caf", "\xe9 ", "", "au lait"])
        assert client.receive() == "caf\xe9 au lait"
        client.send_in_pieces([b"\xf0\x9f", b"", b"\x98\x80"])
        assert client.receive() == b"\xf0\x9f\x98\x80"


def test_pongs_have_the_payload_of_the_ping(site: Server, name: str) -> None:
    with connected(site, name) as client:
        for payload in (b"x", b"\x00\xff", b"y" * 125):
            assert client.pong(payload) == payload
        client.send("after")
        assert client.receive() == "after"


@pytest.mark.parametrize(("code", "reason"), CODES)
def test_close_is_answered_with_the_same(
    site: Server, name: str, code: int, reason: str
) -> None:
    seen = len(site.matches(f"WS / HTTP/1.1 closed {code} "))
    with connected(site, name) as client:
        assert client.close(code, reason) == (code, reason)
    site.wait_for(f"WS / HTTP/1.1 closed {code} ", count=seen + 1)
