"""What websocket clients and consumers see: one answer, whichever server gives it."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.typing import Subprotocol

from djasgi.options import SERVERS
from djasgi.servers.engines.draining import CLOSING
from tests.support.engine import Engine
from tests.support.wire import PATIENCE, UPGRADE, client, listener, websocket

LIMIT = 1000

ACCEPT = {"type": "websocket.accept"}


def text(value: str) -> dict[str, Any]:
    return {"type": "websocket.send", "text": value}


def close(code: int = 1000, reason: str = "") -> dict[str, Any]:
    return {"type": "websocket.close", "code": code, "reason": reason}


class Shared:
    """An engine for all tests that do not stop it."""

    def __init__(self, server: str, engine: Engine, sockets: dict[str, Any]) -> None:
        self.server = server
        self.engine = engine
        self.sockets = sockets

    def connect(self, *steps: Any, **keywords: Any) -> ClientConnection:
        target = "/script?" + quote(json.dumps(["receive", *steps]))
        return websocket(self.sockets["tcp4"], target, **keywords)

    def told(self) -> dict[str, Any]:
        """The next event that the application has received, but for the first."""
        while True:
            line = self.engine.wait_for(r"^received (.*)")[1]
            event: dict[str, Any] = json.loads(line)
            if event["type"] != "websocket.connect":
                return event

    def exchange(self, request: bytes) -> bytes:
        received = b""
        with client(self.sockets["tcp4"]) as sock:
            sock.sendall(request)
            with suppress(ConnectionResetError):
                while chunk := sock.recv(65_536):
                    received += chunk
        return received


@pytest.fixture(scope="module", params=SERVERS)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shared]:
    path = tmp_path_factory.mktemp("websockets") / "s"
    with ExitStack() as stack:
        sockets = {
            family: stack.enter_context(listener(family, path))
            for family in ("tcp4", "unix")
        }
        options: dict[str, Any] = {"access_log": True, "ws_max_size": LIMIT}
        engine = stack.enter_context(
            Engine(request.param, *sockets.values(), **options)
        )
        yield Shared(request.param, engine, sockets)
        output = engine.stop()
        assert "ResourceWarning" not in output
        assert not re.findall(r"^log (?!djasgi).*", output, re.MULTILINE)


@pytest.fixture(autouse=True)
def new_lines(shared: Shared) -> None:
    """Each test looks at what is said from its start on."""
    shared.engine.forget()


def closed_with(ws: ClientConnection) -> tuple[int, str]:
    """Wait for the close: its code and reason, 1006 without one."""
    with suppress(ConnectionClosed):
        while True:
            ws.recv(timeout=PATIENCE)
    return ws.protocol.close_code or 0, ws.protocol.close_reason or ""


def access_line(shared: Shared) -> str:
    """The next line of the access log about the end of a websocket or its refusal."""
    return shared.engine.wait_for(
        r"^log djasgi.access INFO \S+ (WS /script HTTP/1.1 closed \d+ \d+) "
    )[1]


# What the application sees


@pytest.mark.parametrize("family", ["tcp4", "unix"])
def test_scope(shared: Shared, family: str) -> None:
    headers = [("X-A", "1"), ("B", "2"), ("X-A", "3"), ("Cookie", "x=1")]
    headers += [("Cookie", "y=2"), ("X_Under", "1"), ("Daphne-Root-Path", "/x")]
    headers += [("L", "caf\xe9")]
    with websocket(
        shared.sockets[family],
        "/scope?q=%20",
        additional_headers=headers,
        subprotocols=[Subprotocol("one"), Subprotocol("two")],
        user_agent_header=None,
    ) as ws:
        scope = json.loads(ws.recv(timeout=PATIENCE))
    seen = [field for field in scope.pop("headers") if field[0] in "x-a b cookie l"]
    client_, server = scope.pop("client"), scope.pop("server")
    assert seen == [
        ["x-a", "1"],
        ["b", "2"],
        ["x-a", "3"],
        ["cookie", "x=1"],
        ["cookie", "y=2"],
        ["l", "caf\xe9"],
    ]
    kinds = ["bytes"] if family == "unix" else ["bytes", "tuple"]
    assert scope == {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": "/scope",
        "raw_path": "/scope",
        "query_string": "q=%20",
        "root_path": "",
        "subprotocols": ["one", "two"],
        "state": {},
        "extensions": {"websocket.http.response": {}},
        "types": kinds,
    }
    if family == "unix":
        assert (client_, server) == (None, None)
    else:
        assert (client_[0], server) == (
            "127.0.0.1",
            list(shared.sockets[family].getsockname()),
        )


def test_messages(shared: Shared) -> None:
    with shared.connect(ACCEPT, "receive", "receive", "receive", close()) as ws:
        ws.send("text")
        assert shared.told() == {"type": "websocket.receive", "text": "text"}
        ws.send(b"bytes")
        assert shared.told() == {"type": "websocket.receive", "bytes": "bytes"}
        ws.send("")
        assert shared.told() == {"type": "websocket.receive", "text": ""}
        assert closed_with(ws) == (1000, "")


def test_messages_in_fragments_and_pings_between(shared: Shared) -> None:
    with shared.connect(ACCEPT, "receive", close()) as ws:
        pong = ws.ping("there")
        ws.send(iter(["a", "b", "c"]))
        assert shared.told() == {"type": "websocket.receive", "text": "abc"}
        assert pong.wait(PATIENCE)


def test_empty_and_binary_messages_are_sent(shared: Shared) -> None:
    data = {"type": "websocket.send", "bytes": "\x00\xff"}
    empty = {"type": "websocket.send", "bytes": ""}
    both = {"type": "websocket.send", "bytes": "b", "text": None}
    with shared.connect(ACCEPT, text(""), data, empty, both, close()) as ws:
        received = [ws.recv(timeout=PATIENCE) for _ in range(4)]
    assert received == ["", b"\x00\xff", b"", b"b"]


def test_message_sent_with_the_handshake_arrives(shared: Shared) -> None:
    frame = b"\x81\x82" + bytes(4) + b"hi"
    target = "/script?" + quote(json.dumps(["receive", ACCEPT, "receive", close()]))
    received = shared.exchange(UPGRADE % target.encode() + frame)
    assert received.startswith(b"HTTP/1.1 101 ")
    assert shared.told() == {"type": "websocket.receive", "text": "hi"}


# Closes


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1000, ""), (1001, "away"), (3000, "bye \u20ac"), (4001, "x" * 123), (None, "")],
)
def test_close_of_the_client(shared: Shared, code: int | None, reason: str) -> None:
    with shared.connect(ACCEPT, "receive") as ws:
        if code is None:
            ws.socket.sendall(b"\x88\x80" + bytes(4))
        else:
            ws.close(code, reason)
        line = access_line(shared)
        assert line == f"WS /script HTTP/1.1 closed {code or 1005} 0"
        assert shared.told() == {
            "type": "websocket.disconnect",
            "code": code or 1005,
            "reason": reason,
        }


@pytest.mark.parametrize(
    ("code", "reason"),
    [(1000, ""), (1001, ""), (1008, "no"), (1011, "x" * 123), (4002, "bye \u20ac")],
)
def test_close_of_the_application(shared: Shared, code: int, reason: str) -> None:
    with shared.connect(ACCEPT, close(code, reason), "receive") as ws:
        assert closed_with(ws) == (code, reason)
    assert access_line(shared) == f"WS /script HTTP/1.1 closed {code} 0"
    told = {"type": "websocket.disconnect", "code": code, "reason": reason}
    assert shared.told() == told


def test_reason_that_is_too_long_is_cut(shared: Shared) -> None:
    with shared.connect(ACCEPT, close(4000, "\u20ac" * 100)) as ws:
        assert closed_with(ws) == (4000, "\u20ac" * 41)


def test_client_that_is_gone(shared: Shared) -> None:
    with shared.connect(ACCEPT, "receive") as ws:
        ws.socket.shutdown(socket.SHUT_RDWR)
        assert access_line(shared) == "WS /script HTTP/1.1 closed 1006 0"
        assert shared.told() == {
            "type": "websocket.disconnect",
            "code": 1006,
            "reason": "",
        }


def test_what_is_sent_to_a_client_that_is_gone_is_no_error(shared: Shared) -> None:
    steps = [ACCEPT, "receive", text("too late"), text("too late"), close()]
    before = len(shared.engine.log)
    with shared.connect(*steps) as ws:
        ws.socket.shutdown(socket.SHUT_RDWR)
        assert access_line(shared).startswith("WS /script HTTP/1.1 closed 1006")
        shared.told()
    with shared.connect(ACCEPT, close()) as ws:
        assert closed_with(ws) == (1000, "")
    new = shared.engine.log[before:]
    assert not [line for line in new if line.startswith(("refused", "log djasgi E"))]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\xfe\x03\xe9" + bytes(4) + b"x" * (LIMIT + 1), 1009),  # too large
        (b"\x81\x82" + bytes(4) + b"\xff\xff", 1007),  # not UTF-8
        (b"\x83\x80" + bytes(4), 1002),  # no such opcode
        (b"\xc1\x80" + bytes(4), 1002),  # a reserved bit
        (b"\x81\x02hi", 1002),  # not masked
        (b"\x89\xfe\x00\x7e" + bytes(4 + 126), 1002),  # a ping that is too long
        (b"\x80\x80" + bytes(4), 1002),  # the continuation of nothing
        (b"\x88\x82" + bytes(4) + b"\x03\xed", 1002),  # 1005, which is not to be sent
    ],
)
def test_broken_frames(shared: Shared, frame: bytes, code: int) -> None:
    """The client is told why, as far as it listens, and the application the same."""
    target = "/script?" + quote(json.dumps(["receive", ACCEPT, "receive"]))
    received = shared.exchange(UPGRADE % target.encode() + frame)
    assert received.startswith(b"HTTP/1.1 101 ")
    _, _, sent = received.partition(b"\r\n\r\n")
    assert sent[:1] == b"\x88"
    assert int.from_bytes(sent[2:4], "big") == code
    assert access_line(shared) == f"WS /script HTTP/1.1 closed {code} 0"
    assert shared.told()["code"] == code


def test_connection_ends_with_the_answer_to_the_close(shared: Shared) -> None:
    """After a broken frame too (RFC 6455, section 5.5.1)."""
    target = "/script?" + quote(json.dumps(["receive", ACCEPT, "receive"]))
    not_masked, closed = b"\x81\x02hi", b"\x88\x82" + bytes(4) + b"\x03\xea"
    seconds = []
    for _ in range(3):  # for once the machine may be busy
        with client(shared.sockets["tcp4"]) as sock:
            sock.sendall(UPGRADE % target.encode() + not_masked)
            received = b""
            while b"\x03\xea" not in received.partition(b"\r\n\r\n")[2]:
                received += sock.recv(1000)
            start = time.monotonic()
            with suppress(OSError):  # it need not wait for the answer
                sock.sendall(closed)
            with suppress(ConnectionResetError):
                while sock.recv(1000):
                    pass
            seconds.append(time.monotonic() - start)
    assert min(seconds) < CLOSING / 2


# Handshakes


def header_values(ws: ClientConnection, name: str) -> list[str]:
    assert ws.response is not None
    return ws.response.headers.get_all(name)


def test_headers_and_subprotocol_of_the_accept(shared: Shared) -> None:
    accept = {
        "type": "websocket.accept",
        "subprotocol": "two",
        "headers": [("Set-Cookie", "b=1"), ("X-A", "1"), ("Set-Cookie", "a=2")],
    }
    offered = [Subprotocol("one"), Subprotocol("two")]
    with shared.connect(accept, close(), subprotocols=offered) as ws:
        assert ws.subprotocol == "two"
        assert header_values(ws, "Set-Cookie") == ["b=1", "a=2"]
        assert header_values(ws, "X-A") == ["1"]
        assert len(header_values(ws, "Date")) == 1
        assert header_values(ws, "Server") == []


def refused(
    shared: Shared, *steps: Any, **keywords: Any
) -> tuple[int, bytes, list[str]]:
    with pytest.raises(InvalidStatus) as caught:
        shared.connect(*steps, **keywords)
    response = caught.value.response
    names = sorted(name.lower() for name, _ in response.headers.raw_items())
    return response.status_code, bytes(response.body or b""), names


ALWAYS = ["connection", "content-length", "content-type", "date"]


def test_close_before_the_accept_is_403(shared: Shared) -> None:
    assert refused(shared, close(), "receive") == (403, b"Forbidden", ALWAYS)
    assert access_line(shared) == "WS /script HTTP/1.1 closed 403 0"
    told = shared.told()
    assert (told["type"], told["code"]) == ("websocket.disconnect", 1006)


def test_response_in_place_of_the_accept(shared: Shared) -> None:
    denial = [
        {
            "type": "websocket.http.response.start",
            "status": 401,
            "headers": [("Content-Type", "text/x"), ("WWW-Authenticate", "Basic")],
        },
        {"type": "websocket.http.response.body", "body": "de", "more_body": True},
        {"type": "websocket.http.response.body", "body": "nied"},
    ]
    assert refused(shared, *denial, "receive") == (
        401,
        b"denied",
        sorted([*ALWAYS, "www-authenticate"]),
    )
    assert access_line(shared) == "WS /script HTTP/1.1 closed 401 6"
    assert shared.told()["code"] == 1006


@pytest.mark.parametrize(
    "steps",
    [
        ["raise"],
        ["exit"],
        [],
        [text("not accepted")],
        [{"type": "websocket.accept", "subprotocol": "not offered"}],
        [{"type": "websocket.accept", "headers": [("Sec-WebSocket-Accept", "x")]}],
    ],
)
def test_application_that_fails_before_the_accept(
    shared: Shared, steps: list[Any]
) -> None:
    assert refused(shared, *steps) == (500, b"Internal Server Error", ALWAYS)
    shared.engine.wait_for("^log djasgi ERROR ")


@pytest.mark.parametrize(
    "steps",
    [
        ["raise"],
        ["exit"],
        [],
        [ACCEPT],
        [{"type": "websocket.send"}],
        [{"type": "websocket.send", "text": "a", "bytes": "b"}],
        [{"type": "http.response.start", "status": 200}],
    ],
)
def test_application_that_ends_after_the_accept(
    shared: Shared, steps: list[Any]
) -> None:
    with shared.connect(ACCEPT, *steps) as ws:
        assert closed_with(ws) == (1011, "")
    assert access_line(shared) == "WS /script HTTP/1.1 closed 1011 0"


def test_nothing_may_be_sent_after_a_close(shared: Shared) -> None:
    with shared.connect(ACCEPT, close(4000), text("late")) as ws:
        assert closed_with(ws) == (4000, "")
    shared.engine.wait_for("^refused websocket.send RuntimeError")


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ((b"Sec-WebSocket-Version: 13\r\n", b"Sec-WebSocket-Version: 8\r\n"), 426),
        ((b"Sec-WebSocket-Version: 13\r\n", b""), 400),
        ((b"dGhlIHNhbXBsZSBub25jZQ==", b"short"), 400),
        ((b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""), 400),
        ((b"Host: localhost\r\n", b""), 400),
        ((b"Host:", b"Sec-WebSocket-Extensions: a; ;\r\nHost:"), 400),
        ((b"Host:", b"Sec-WebSocket-Protocol: a, a\r\nHost:"), 400),
        ((b"Host:", b"Sec-WebSocket-Protocol: a b\r\nHost:"), 400),
    ],
)
def test_handshake_that_is_none(
    shared: Shared, changed: tuple[bytes, bytes], status: int
) -> None:
    response = shared.exchange((UPGRADE % b"/").replace(*changed))
    assert response.startswith(b"HTTP/1.1 %d " % status)
    assert (b"sec-websocket-version: 13\r\n" in response) == (status == 426)
    shared.engine.wait_for(f"^log djasgi.access INFO .* - HTTP/- {status} ")


@pytest.mark.parametrize(
    "changed",
    [
        (b"GET ", b"POST "),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"Connection: Upgrade", b"Connection: keep-alive"),
        (b"Upgrade: websocket", b"Upgrade: other"),
    ],
)
def test_request_that_does_not_ask_for_a_websocket(
    shared: Shared, changed: tuple[bytes, bytes]
) -> None:
    request = (UPGRADE % b"/").replace(*changed)
    with client(shared.sockets["tcp4"]) as sock:
        sock.sendall(request)
        received = b""
        while not received.endswith(b"hello"):
            received += sock.recv(1000)
    assert received.startswith(b"HTTP/1.1 200 OK\r\n")


def test_same_origin_is_the_applications_to_ask_for(shared: Shared) -> None:
    for origin in ("https://elsewhere.example", "null", "file://", "none"):
        with shared.connect(
            ACCEPT, close(), additional_headers=[("Origin", origin)]
        ) as ws:
            assert closed_with(ws) == (1000, "")


# What is left, and known


def test_a_compressed_message_is_inflated_no_further_than_it_may_be(
    shared: Shared,
) -> None:
    def most() -> int:
        status = Path(f"/proc/{shared.engine.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])

    before = most()
    with shared.connect(ACCEPT, "receive", compression="deflate", max_size=None) as ws:
        with suppress(ConnectionClosed):
            ws.send(bytes(100_000_000))  # 100 kB on the wire
        assert closed_with(ws)[0] in (1009, 1006)  # what it still sends resets
    assert shared.told()["code"] == 1009
    assert most() - before < 50_000


def test_compression_is_up_to_the_server(shared: Shared) -> None:
    with shared.connect(ACCEPT, close(), compression="deflate") as ws:
        names = [extension.name for extension in ws.protocol.extensions]
    assert names == ([] if shared.server == "daphne" else ["permessage-deflate"])
