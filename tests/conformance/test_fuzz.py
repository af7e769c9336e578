"""Whatever comes, a server goes on: seeded, and longer with FUZZ_EXAMPLES=5000."""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import hpack
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from djasgi.options import SERVERS
from tests.support.engine import Engine
from tests.support.http2 import Client
from tests.support.wire import (
    HEAD,
    UPGRADE,
    answer,
    client,
    listener,
    make_certificates,
    tls_context,
    tls_options,
)

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
PATIENCE = 0.02
"""Seconds to wait for an answer that may never come."""

MOST_GROWTH = 24 * 2**20
"""Bytes of resident memory, of which the first requests take the most."""

bounded = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)

REQUESTS = [
    HEAD % b"/",
    b"GET /scope?a=b HTTP/1.1\r\nHost: h\r\nCookie: a=1\r\nX-A: caf\xc3\xa9\r\n\r\n",
    b"POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
    (
        b"POST /body HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5;x=y\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n"
    ),
    b"POST /body HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
    b"HEAD / HTTP/1.0\r\n\r\n" + HEAD % b"/",
    b"OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    b"GET http://h:80/scope HTTP/1.1\r\nHost: other\r\n\r\n",
    UPGRADE % b"/" + b"\x81\x85\x01\x02\x03\x04helio\x88\x82\x00\x00\x00\x00\x03\xe8",
    UPGRADE % b"/" + b"\x01\x81\x00\x00\x00\x00a\x89\x80\x00\x00\x00\x00\x80\x81"
    b"\x00\x00\x00\x00b",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
]

PIECES = st.sampled_from(
    [
        *(
            b"\r\n",
            b"\n",
            b"\r",
            b"\0",
            b" ",
            b"\t",
            b":",
            b"\x80",
            b"\xff",
            b"%",
            b"-1",
        ),
        *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: x\r\n"),
        *(
            b"Upgrade: websocket\r\n",
            b"Connection: upgrade\r\n",
            b"HTTP/1.1",
            b"\r\n\r\n",
        ),
        *(b"x" * 70_000, b"X: y\r\n" * 600, b"0\r\n\r\n", b"ffffffffffffffff\r\n"),
    ]
)


@st.composite
def mutated(draw: st.DrawFn, requests: list[bytes]) -> bytes:
    data = bytearray(draw(st.sampled_from(requests)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 20))
        match draw(st.sampled_from(["delete", "insert", "repeat", "replace", "cut"])):
            case "delete":
                del data[at : at + length]
            case "insert":
                data[at:at] = draw(PIECES | st.binary(max_size=10))
            case "repeat":
                data[at:at] = data[at : at + length]
            case "replace":
                data[at : at + length] = draw(st.binary(max_size=20))
            case "cut":
                del data[at:]
    return bytes(data)


FRAMES = st.binary(max_size=200) | st.lists(
    st.builds(
        lambda first, size, body: bytes([first, 0x80 | size]) + bytes(4) + body,
        st.integers(0, 255),
        st.integers(0, 127),
        st.binary(max_size=130),
    ),
    max_size=4,
).map(b"".join)

INPUT = (
    st.binary(max_size=300)
    | mutated(REQUESTS)
    | FRAMES.map(lambda frames: UPGRADE % b"/" + frames)
)


class Target:
    def __init__(self, engine: Engine, sock: socket.socket) -> None:
        self.engine = engine
        self.sock = sock
        self.first = 0

    def memory(self) -> int:
        status = Path(f"/proc/{self.engine.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024

    def hit(self, data: bytes, at: int) -> bytes:
        """Send `data` in two pieces; what comes back at once."""
        received = b""
        with client(self.sock) as sock:
            sock.settimeout(PATIENCE)
            with suppress(TimeoutError, ConnectionError):
                sock.sendall(data[:at])
                sock.sendall(data[at:])
                while chunk := sock.recv(65_536):
                    received += chunk
        return received


def ended_well(target: Target) -> None:
    output = target.engine.stop()
    # What the application does is its own; what is said of it comes from djasgi.
    assert not re.findall(r"^log (?!djasgi ).*", output, re.MULTILINE)


@pytest.fixture(scope="module", params=SERVERS)
def target(request: pytest.FixtureRequest) -> Iterator[Target]:
    with listener() as sock, Engine(request.param, sock, ws_max_size=1000) as engine:
        found = Target(engine, sock)
        yield found
        ended_well(found)


@bounded
@given(data=INPUT, at=st.integers(0, 300))
def test_whatever_comes_the_next_request_is_answered(
    target: Target, data: bytes, at: int
) -> None:
    received = target.hit(data, at)
    assert b"Traceback" not in received
    assert b'File "' not in received
    with client(target.sock) as sock:
        sock.sendall(HEAD % b"/")
        assert answer(sock)[2] == b"hello"
    target.first = target.first or target.memory()
    assert target.memory() - target.first < MOST_GROWTH


@pytest.fixture(scope="module", params=SERVERS)
def tls_target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Target, ssl.SSLContext]]:
    files = tmp_path_factory.mktemp("tls")
    make_certificates(files)
    with (
        listener() as sock,
        Engine(request.param, sock, **tls_options(files)) as engine,
    ):
        found = Target(engine, sock)
        yield found, tls_context(files)
        ended_well(found)


def client_hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@settings(bounded, max_examples=max(10, EXAMPLES // 4))
@given(data=mutated([client_hello()]), at=st.integers(0, 300))
def test_broken_tls(
    tls_target: tuple[Target, ssl.SSLContext], data: bytes, at: int
) -> None:
    target, context = tls_target
    target.hit(data, at)
    with context.wrap_socket(client(target.sock), server_hostname="localhost") as sock:
        sock.sendall(
            (HEAD % b"/").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        assert answer(sock)[2] == b"hello"


HEADS = [
    [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"h"), (b":path", b"/")],
    [(b":method", b"POST"), (b":scheme", b"https"), (b":authority", b"h"), (b":path", b"/body")],
    [(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/body"), (b"content-length", b"4")],
    [(b":method", b"CONNECT"), (b":authority", b"h:1"), (b":protocol", b"websocket")],
    [(b":method", b"GET"), (b"connection", b"close"), (b":path", b"x"), (b"Host", b"h")],
    [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"h"), (b":path", b"/medium")],
]  # fmt: skip


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """RFC 9113, section 4.1."""
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + payload


def request(head: list[tuple[bytes, bytes]], stream: int, flags: int) -> bytes:
    return frame(1, flags, stream, bytes(hpack.Encoder().encode(head, huffman=False)))


STREAMS = st.integers(0, 9)
HTTP2 = st.lists(
    st.builds(frame, st.integers(0, 12), st.integers(0, 255), STREAMS, st.binary(max_size=30))
    | st.builds(request, st.sampled_from(HEADS), STREAMS, st.sampled_from([0, 1, 4, 5]))
    | st.builds(lambda s, size: frame(0, 0, s, bytes(size)), STREAMS, st.integers(0, 9000))
    | st.builds(lambda s: frame(3, 0, s, bytes(4)), STREAMS),
    max_size=8,
).map(b"".join)  # fmt: skip


@pytest.fixture(scope="module", params=["hypercorn", "daphne"])
def http2_target(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Target, ssl.SSLContext]]:
    files = tmp_path_factory.mktemp("tls")
    make_certificates(files)
    options = tls_options(files, http2=True)
    with listener() as sock, Engine(request.param, sock, **options) as engine:
        found = Target(engine, sock)
        yield found, tls_context(files, "h2")
        ended_well(found)


@settings(bounded, max_examples=max(10, EXAMPLES // 4))
@given(data=HTTP2, at=st.integers(0, 200))
def test_broken_http2(
    http2_target: tuple[Target, ssl.SSLContext], data: bytes, at: int
) -> None:
    target, context = http2_target
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
    with context.wrap_socket(client(target.sock), server_hostname="localhost") as sock:
        sock.settimeout(PATIENCE)
        with suppress(TimeoutError, OSError):
            sock.sendall(preface + data[:at])
            sock.sendall(data[at:])
            while sock.recv(65_536):
                pass
    with Client(client(target.sock), context) as connected:
        assert connected.get().body == b"hello"
    target.first = target.first or target.memory()
    assert target.memory() - target.first < MOST_GROWTH
