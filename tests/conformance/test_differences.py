"""What is known to differ, pinned: each of these fails when a server changes its ways."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from djasgi.options import SERVERS
from tests.support.engine import Engine
from tests.support.wire import (
    HEAD,
    UPGRADE,
    answer,
    client,
    listener,
    websocket,
)

Shared = tuple[str, Engine, socket.socket]


@pytest.fixture(scope="module", params=SERVERS)
def shared(request: pytest.FixtureRequest) -> Iterator[Shared]:
    with (
        listener() as sock,
        Engine(request.param, sock) as engine,
    ):
        yield request.param, engine, sock
        engine.stop()


POST = b"POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n%s\r\n"


def test_request_body(shared: Shared) -> None:
    server, engine, sock = shared
    with client(sock) as slow, client(sock) as other:
        slow.sendall(POST % (b"/body", b""))
        other.sendall(HEAD % b"/after")
        answer(other)
        called = engine.wait_for("^http /(body|after)$")[1]
        slow.sendall(b"four")
        assert answer(slow)[2] == b"4"
    assert called == ("after" if server == "daphne" else "body")


def test_connection_after_an_early_response(shared: Shared) -> None:
    server, _, sock = shared
    with client(sock) as early:
        early.sendall(POST % (b"/", b""))
        if server == "daphne":
            early.sendall(b"four")
        said = answer(early)[1].get("connection")
    assert said == (None if server == "daphne" else "close")


def test_continue(shared: Shared) -> None:
    server, _, sock = shared
    with client(sock) as waiting:
        # This application answers without the body.
        waiting.sendall(POST % (b"/", b"Expect: 100-continue\r\n"))
        first = waiting.recv(12)
        assert first[-3:] == (b"200" if server == "uvicorn" else b"100")


def test_close_between_fragments(shared: Shared) -> None:
    server, engine, sock = shared
    steps = ["receive", {"type": "websocket.accept"}, "receive"]
    mask = bytes(4)
    with client(sock) as closing:
        closing.sendall(UPGRADE % (b"/script?" + quote(json.dumps(steps)).encode()))
        stream = closing.makefile("rb")
        while stream.readline().strip():
            pass
        closing.sendall(b"\x01\x83" + mask + b"one" + b"\x88\x82" + mask + b"\x03\xe8")
        answered = stream.read(4)[2:]
    told = json.loads(engine.wait_for(r"^received (.*disconnect.*)")[1])
    code = 1002 if server == "uvicorn" else 1000
    assert (int.from_bytes(answered), told["code"]) == (code, code)


def test_compression(shared: Shared) -> None:
    server, _, sock = shared
    with websocket(sock, compression="deflate") as ws:
        names = [extension.name for extension in ws.protocol.extensions]
    assert names == ([] if server == "daphne" else ["permessage-deflate"])
