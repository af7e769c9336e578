"""How an engine stops: each test holds on every server, on real sockets."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.client import HTTPException
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from djasgi.options import SERVERS
from tests.support.engine import LARGE, Engine
from tests.support.wire import (
    HEAD,
    PATIENCE,
    UPGRADE,
    answer,
    client,
    get,
    listener,
    make_certificates,
    raw_websocket,
    tls_context,
    tls_options,
    websocket,
)

LONG = 30.0
"""Seconds: of a limit that must not be what ends a test."""

SOON = 10.0
"""Seconds within which something has been done at once, on a busy machine too."""

LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
SLOW_LOOPS = pytest.mark.parametrize(
    "loop", ["uvloop", pytest.param("asyncio", marks=pytest.mark.slow)]
)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with listener() as listening:
        yield listening


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    make_certificates(folder)
    return folder


def drain(engine: Engine) -> None:
    """Ask to stop, and wait until the engine does not accept any more."""
    engine.ask_to_stop()
    engine.wait_for("^draining$")


def rest(sock: socket.socket) -> bytes:
    """What comes until the peer closes in order."""
    received = b""
    while chunk := sock.recv(100_000):
        received += chunk
    return received


def until_1012(sock: socket.socket) -> bytes:
    """What comes up to the frame that closes a websocket with 1012."""
    received = b""
    while not received.endswith(b"\x88\x02" + (1012).to_bytes(2, "big")):
        chunk = sock.recv(100_000)
        assert chunk, received
        received += chunk
    return received


def silent_until_closed(sock: socket.socket) -> float:
    start = time.monotonic()
    assert rest(sock) == b""
    return time.monotonic() - start


# Requests in flight


@LOOPS
def test_requests_in_flight_finish(server: str, sock: socket.socket, loop: str) -> None:
    with (
        Engine(server, sock, loop=loop, linger=0) as engine,
        client(sock) as held,
        client(sock) as streaming,
    ):
        held.sendall(HEAD % b"/hold")
        engine.wait_for("^http /hold$")
        streaming.sendall(HEAD % b"/stream")
        received = b""
        while b"first," not in received:
            received += streaming.recv(1000)
        drain(engine)
        engine.release()

        status, fields, body = answer(held)
        assert (status, body) == (200, b"held")
        assert fields["connection"] == "close"
        assert silent_until_closed(held) < SOON
        assert rest(streaming).endswith(b"last\r\n0\r\n\r\n")
        output = engine.ended()
        assert "cancelled" not in output
        assert "log " not in output
        assert "served 2, 0 active" in output


def test_slow_upload_is_a_request_in_flight(server: str, sock: socket.socket) -> None:
    with Engine(server, sock, linger=0) as engine, client(sock) as slow:
        slow.sendall(
            b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345"
        )
        if server == "daphne":  # it calls the application when it has the whole body
            with client(sock) as other:
                other.sendall(HEAD % b"/")
                answer(other)
        else:
            engine.wait_for("^http /body$")
        drain(engine)
        slow.settimeout(0.3)
        for byte in b"67890":
            with pytest.raises(TimeoutError):
                slow.recv(1)
            slow.sendall(bytes([byte]))
        slow.settimeout(PATIENCE)

        status, fields, body = answer(slow)
        assert (status, body, fields["connection"]) == (200, b"10", "close")
        assert "log " not in engine.ended()


def let_pass(seconds: float) -> None:
    """Let time go by, in which something must not happen."""
    threading.Event().wait(seconds)


@pytest.mark.parametrize(
    "tls", [pytest.param(False, marks=pytest.mark.slow), True], ids=["plain", "tls"]
)
def test_client_that_reads_slowly_gets_the_end(
    server: str, sock: socket.socket, files: Path, tls: bool
) -> None:
    """Long after connections that have nothing to send are gone."""
    with (
        Engine(server, sock, linger=0, **tls_options(files) if tls else {}) as engine,
        client(sock) as plain,
    ):
        if tls:
            slow: socket.socket = tls_context(files).wrap_socket(
                plain, server_hostname="localhost"
            )
        else:
            slow = plain
        with slow:
            slow.sendall(HEAD % b"/large")
            engine.wait_for("^http /large$")
            drain(engine)
            let_pass(2.5)
            assert len(answer(slow)[2]) == LARGE
        assert "log " not in engine.ended()


def test_pipelined_request_is_not_answered_but_the_connection_closed_in_order(
    server: str, sock: socket.socket
) -> None:
    """RFC 9112, section 9.6: the client sees the close, and can ask again."""
    with Engine(server, sock, linger=LONG) as engine, client(sock) as sending:
        sending.sendall(HEAD % b"/hold" + HEAD % b"/")
        engine.wait_for("^http /hold$")
        drain(engine)
        # More than anybody reads ahead: to close with this unread is a reset.
        sending.settimeout(0.5)
        with suppress(TimeoutError):
            for _ in range(1000):
                sending.sendall(HEAD % (b"/" + b"x" * 4000))
        sending.settimeout(PATIENCE)
        engine.release()

        status, fields, body = answer(sending)
        assert (status, body, fields["connection"]) == (200, b"held", "close")
        assert rest(sending) == b""
        sending.close()
        output = engine.ended()
        assert output.count("http /") == 1
        assert "log " not in output


@pytest.mark.parametrize("path", ["/pour", "/large", "/scope"])
def test_client_that_never_reads_cannot_hold_it(
    server: str, sock: socket.socket, path: str
) -> None:
    with (
        Engine(server, sock, graceful_timeout=0.5, linger=LONG) as engine,
        client(sock) as deaf,
    ):
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(50):
            deaf.sendall(HEAD % path.encode())
        engine.wait_for(f"^http {path}$")
        start = time.monotonic()
        engine.stop()
        assert time.monotonic() - start < SOON


def test_graceful_timeout_cuts_what_never_ends(
    server: str, sock: socket.socket
) -> None:
    with (
        Engine(server, sock, graceful_timeout=0.5) as engine,
        client(sock) as never,
        client(sock) as streaming,
    ):
        never.sendall(HEAD % b"/never")
        engine.wait_for("^http /never$")
        streaming.sendall(HEAD % b"/stream")
        engine.wait_for("^http /stream$")
        start = time.monotonic()
        output = engine.stop()

        assert 0.4 < time.monotonic() - start < SOON
        assert answer(never)[0] == 500
        assert "cancelled /never" in output
        assert "cancelled /stream" in output
        [line] = [line for line in output.split("\n") if line.startswith("log ")]
        assert line == (
            "log djasgi WARNING cancelled 2 requests still running "
            "after the graceful timeout of 0.5 s"
        )


# Connections that are used again


@LOOPS
@pytest.mark.parametrize("used", [True, False], ids=["used", "new"])
def test_idle_connection_may_be_used_once_more(
    server: str, sock: socket.socket, loop: str, used: bool
) -> None:
    with (
        Engine(server, sock, loop=loop, linger=LONG) as engine,
        client(sock) as idle,
        client(sock) as other,
    ):
        for connection in [idle, other] if used else [other]:
            connection.sendall(HEAD % b"/")
            assert "connection" not in answer(connection)[1]
        drain(engine)

        idle.sendall(HEAD % b"/")
        status, fields, body = answer(idle)
        assert (status, body, fields["connection"]) == (200, b"hello", "close")
        assert silent_until_closed(idle) < SOON
        # The other lingers still, until it goes by itself.
        other.settimeout(0.3)
        with pytest.raises(TimeoutError):
            other.recv(1)
        other.close()
        assert "log " not in engine.ended()


@LOOPS
def test_idle_connection_may_be_used_once_more_over_tls(
    server: str, sock: socket.socket, files: Path, loop: str
) -> None:
    context = tls_context(files)
    options = tls_options(files, loop=loop, linger=LONG)
    with (
        Engine(server, sock, **options) as engine,
        client(sock) as accepted,
        context.wrap_socket(client(sock), server_hostname="localhost") as idle,
    ):
        idle.sendall(HEAD % b"/")
        answer(idle)
        drain(engine)
        with context.wrap_socket(accepted, server_hostname="localhost") as new:
            for connection in (idle, new):
                connection.sendall(HEAD % b"/")
                status, fields, body = answer(connection)
                assert (status, body, fields["connection"]) == (200, b"hello", "close")
                assert silent_until_closed(connection) < SOON
        assert "log " not in engine.ended()


def test_idle_connections_are_closed_when_they_have_lingered(
    server: str, sock: socket.socket
) -> None:
    with (
        Engine(server, sock, linger=0.6) as engine,
        client(sock) as new,
        client(sock) as idle,
    ):
        idle.sendall(HEAD % b"/")
        answer(idle)
        start = time.monotonic()
        drain(engine)
        silent_until_closed(idle)
        silent_until_closed(new)
        assert 0.5 < time.monotonic() - start < SOON
        assert "log " not in engine.ended()


def test_connection_lingers_after_a_response_that_did_not_say_close(
    server: str, sock: socket.socket
) -> None:
    """It had started before, and ends when the others are gone."""
    with (
        Engine(server, sock, linger=0.6, stream_grace=LONG) as engine,
        client(sock) as streaming,
        client(sock) as idle,
    ):
        streaming.sendall(HEAD % b"/stream")
        engine.wait_for("^http /stream$")
        while not streaming.recv(1000).endswith(b"first,\r\n"):
            pass
        drain(engine)
        silent_until_closed(idle)
        engine.release()
        while not streaming.recv(1000).endswith(b"0\r\n\r\n"):
            pass
        streaming.sendall(HEAD % b"/")
        assert answer(streaming)[1]["connection"] == "close"
        engine.ended()


@pytest.mark.parametrize("linger", [0, LONG])
def test_stop_is_over_when_no_connection_is_left(
    server: str, sock: socket.socket, linger: float
) -> None:
    with Engine(server, sock, linger=linger) as engine, client(sock) as idle:
        idle.sendall(HEAD % b"/")
        answer(idle)
        start = time.monotonic()
        drain(engine)
        if linger:
            idle.close()
        else:
            silent_until_closed(idle)
        assert "log " not in engine.ended()
        assert time.monotonic() - start < SOON


def test_half_a_head_does_not_hold_up_the_stop(
    server: str, sock: socket.socket
) -> None:
    with (
        Engine(server, sock, header_timeout=0, linger=0.3) as engine,
        client(sock) as half,
    ):
        half.sendall(b"GET / HTTP/1.1\r\nHost:")
        get(sock)
        start = time.monotonic()
        engine.stop()
        assert time.monotonic() - start < SOON


LAST = [
    (b"GET / HTTP/1.0\r\nConnection: keep-alive", b"hello"),
    (b"HEAD / HTTP/1.1", b""),
    (b"GET /keep-alive HTTP/1.1", b"said"),
    (b"GET /close HTTP/1.1", b"said"),
    (b"GET / HTTP/1.1\r\nConnection: close", b"hello"),
    (b"GET /raise HTTP/1.1", None),
    (b"GET /nothing HTTP/1.1", None),
]


def test_every_response_says_close_once(server: str, sock: socket.socket) -> None:
    with Engine(server, sock, linger=LONG) as engine, ExitStack() as stack:
        idle = [stack.enter_context(client(sock)) for _ in LAST]
        get(sock)
        drain(engine)
        for connection, (request_line, body) in zip(idle, LAST, strict=True):
            connection.sendall(request_line + b"\r\nHost: localhost\r\n\r\n")
            head, _, received = rest(connection).partition(b"\r\n\r\n")
            fields = re.findall(rb"(?im)^connection:\s*([^\r]*)", head)
            assert fields == [b"close"], request_line
            if body is not None:
                assert re.match(rb"HTTP/1\.[01] 200 ", head)
                chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
                assert received in (body, chunked), request_line
        engine.ended()


@SLOW_LOOPS
def test_no_connection_is_dropped_between_accepting_and_the_first_request(
    server: str, sock: socket.socket, loop: str
) -> None:
    """What the one has accepted it answers; the rest waits for the other."""
    for _ in range(3):
        with (
            Engine(server, sock, loop=loop) as old,
            Engine(server, sock, loop=loop) as new,
            ExitStack() as stack,
        ):
            clients = []
            for number in range(150):
                clients.append(stack.enter_context(client(sock)))
                clients[-1].sendall(HEAD % b"/")
                if number == 75:
                    old.ask_to_stop()
            for connection in clients:
                assert answer(connection)[2] == b"hello"
                connection.close()
            old.ended()
            new.stop()


class Reusers:
    """Clients that use their connection again after a time of thinking.

    They write without looking whether the peer has closed: no proxy is as careless.
    """

    def __init__(self, of: socket.socket, number: int, think: float) -> None:
        self.of = of
        self.think = think
        self.done = threading.Event()
        self.requests = self.resets = self.refused = 0
        self.pool = ThreadPoolExecutor(number)
        self.futures = [self.pool.submit(self.run) for _ in range(number)]

    def run(self) -> None:
        while not self.done.is_set():
            try:
                connection = client(self.of)
            except ConnectionRefusedError:
                self.refused += 1
                continue
            with connection:
                try:
                    self.use(connection)
                except (OSError, HTTPException):
                    self.resets += 1

    def use(self, connection: socket.socket) -> None:
        fields: dict[str, str] = {}
        while not self.done.is_set() and fields.get("connection") != "close":
            connection.sendall(HEAD % b"/")
            fields = answer(connection)[1]
            self.requests += 1
            self.done.wait(self.think)

    def wait_for(self, more: int) -> None:
        """Wait until so many more requests have been answered."""
        requests = self.requests + more
        end = time.monotonic() + PATIENCE
        while self.requests < requests and time.monotonic() < end:
            let_pass(0.02)

    def stop(self) -> None:
        self.done.set()
        for future in self.futures:
            future.result(PATIENCE)
        self.pool.shutdown()


def reuse_while_it_is_replaced(
    server: str,
    sock: socket.socket,
    linger: float,
    loop: str = "uvloop",
    times: int = 3,
) -> Reusers:
    with ExitStack() as stack:
        old = stack.enter_context(Engine(server, sock, loop=loop, linger=linger))
        reusers = Reusers(sock, 20, think=0.3)
        stack.callback(reusers.stop)
        for _ in range(times):
            reusers.wait_for(60)
            new = stack.enter_context(Engine(server, sock, loop=loop, linger=linger))
            old.stop()
            old = new
        reusers.stop()
    return reusers


@SLOW_LOOPS
def test_nobody_who_uses_a_connection_again_is_reset(
    server: str, sock: socket.socket, loop: str
) -> None:
    reusers = reuse_while_it_is_replaced(server, sock, 2, loop)
    print(f"{server} {loop}: {reusers.requests} requests")
    assert (reusers.resets, reusers.refused) == (0, 0), reusers.requests


def test_without_linger_they_are(server: str, sock: socket.socket) -> None:
    """So the test above sees what it is there to see."""
    reusers = reuse_while_it_is_replaced(server, sock, 0, times=2)
    assert reusers.resets > 0


# Streams


def test_streaming_application_sees_a_disconnect_after_the_grace(
    server: str, sock: socket.socket
) -> None:
    paths = ("/events", "/silent", "/chunks", "/sized")
    with (
        Engine(server, sock, stream_grace=0.6, linger=0) as engine,
        ExitStack() as stack,
    ):
        streams = {path: stack.enter_context(client(sock)) for path in paths}
        received = dict.fromkeys(paths, b"")
        for path, streaming in streams.items():
            streaming.sendall(HEAD % path.encode())
            engine.wait_for(f"^http {path}$")
            while path != "/silent" and b"first" not in received[path]:
                received[path] += streaming.recv(1000)
        start = time.monotonic()
        drain(engine)
        engine.wait_for("^disconnect ")
        assert 0.5 < time.monotonic() - start < SOON
        for path, streaming in streams.items():
            received[path] += rest(streaming)
        # An event stream ends, so that the browser reconnects; nothing else is whole.
        whole = {path for path in paths if received[path].endswith(b"0\r\n\r\n")}
        assert whole == {"/events", "/silent"}
        output = engine.ended()
        assert {f"disconnect {path}" for path in paths} <= set(output.split("\n"))
        assert "log " not in output
        assert "cancelled" not in output


def test_stream_that_is_cut_does_not_look_whole_to_http_1_0(
    server: str, sock: socket.socket
) -> None:
    with (
        Engine(server, sock, stream_grace=0.2, linger=0) as engine,
        client(sock) as streaming,
    ):
        streaming.sendall(b"GET /chunks HTTP/1.0\r\nHost: localhost\r\n\r\n")
        while b"first" not in streaming.recv(1000):
            pass
        drain(engine)
        with pytest.raises(ConnectionResetError):
            rest(streaming)
        assert "log " not in engine.ended()


def test_stream_that_begins_in_the_drain_has_its_grace(
    server: str, sock: socket.socket
) -> None:
    with (
        Engine(server, sock, stream_grace=0.6, linger=0) as engine,
        client(sock) as late,
        client(sock) as idle,
    ):
        late.sendall(HEAD % b"/late")
        engine.wait_for("^http /late$")
        drain(engine)
        silent_until_closed(idle)
        let_pass(0.8)
        start = time.monotonic()
        engine.release()
        _, fields, body = answer(late)
        assert 0.5 < time.monotonic() - start < SOON
        assert (fields["connection"], body) == ("close", b"data: first\n\n")
        assert "log " not in engine.ended()


def test_stream_grace_of_zero_cuts_no_ordinary_response(
    server: str, sock: socket.socket
) -> None:
    with Engine(server, sock, stream_grace=0, linger=LONG) as engine, ExitStack() as up:
        idle = [up.enter_context(client(sock)) for _ in range(20)]
        get(sock)
        drain(engine)
        for connection in idle:
            connection.sendall(HEAD % b"/scope")
        for connection in idle:
            assert answer(connection)[0] == 200
        engine.ended()


# Websockets


def test_websockets_are_closed_with_1012_at_once(
    server: str, sock: socket.socket
) -> None:
    with (
        Engine(server, sock, ws_ping_interval=0, linger=LONG) as engine,
        websocket(sock) as ws,
        raw_websocket(sock) as mute,
        client(sock) as idle,
    ):
        ws.send("open")
        assert ws.recv() == "open"
        start = time.monotonic()
        drain(engine)

        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=PATIENCE)
        assert ws.protocol.close_code == 1012
        assert mute.recv(4) == b"\x88\x02" + (1012).to_bytes(2, "big")
        for _ in range(2):
            engine.wait_for("^disconnect 1012$")
        idle.close()
        output = engine.ended()
        assert "cancelled" not in output
        assert "log " not in output
        # Nor does the one hold it up that never answers.
        assert time.monotonic() - start < SOON


def test_websocket_that_is_sending_sees_1012(server: str, sock: socket.socket) -> None:
    """Not a reset, because of what has not been read."""
    with Engine(server, sock, ws_ping_interval=0) as engine, client(sock) as busy:
        busy.sendall(UPGRADE % b"/")
        engine.wait_for("^websocket /$")
        busy.settimeout(0.5)
        engine.ask_to_stop()
        with suppress(TimeoutError, ConnectionResetError, BrokenPipeError):
            for _ in range(2000):
                busy.sendall(b"\x82\xfe\x03\xe8" + bytes(4 + 1000))
        busy.settimeout(PATIENCE)
        until_1012(busy)
        busy.close()
        assert "log " not in engine.ended()


def assert_unavailable(response: bytes) -> None:
    """The same words on every server, with a length, and the last of the connection."""
    head, _, body = response.partition(b"\r\n\r\n")
    first, *fields = sorted(re.sub(rb"date: .*GMT", b"date: now", head).split(b"\r\n"))
    assert (first, body) == (
        b"HTTP/1.1 503 Service Unavailable",
        b"Service Unavailable",
    )
    assert fields == [
        b"connection: close",
        b"content-length: 19",
        b"content-type: text/plain; charset=utf-8",
        b"date: now",
    ]


def test_websocket_not_yet_accepted_is_refused(
    server: str, sock: socket.socket
) -> None:
    """Nor within the grace that responses have."""
    options = {"linger": LONG, "stream_grace": 0.3}
    with Engine(server, sock, **options) as engine, client(sock) as undecided:
        undecided.sendall(UPGRADE % b"/undecided")
        engine.wait_for("^websocket /undecided$")
        drain(engine)
        assert_unavailable(rest(undecided))
        engine.wait_for("^disconnect 1012$")
        undecided.close()
        assert "log " not in engine.ended()


def test_websocket_that_comes_in_the_drain_is_told_to_go(
    server: str, sock: socket.socket
) -> None:
    """It is a request on a connection that was accepted: 1012 and not an error."""
    with Engine(server, sock, linger=LONG) as engine, client(sock) as late:
        get(sock)
        drain(engine)
        late.sendall(UPGRADE % b"/")
        assert until_1012(late).startswith(b"HTTP/1.1 101")
        late.close()
        engine.wait_for("^disconnect 1012$")
        assert "log " not in engine.ended()


def test_websocket_that_is_accepted_in_the_drain_is_told_to_go(
    server: str, sock: socket.socket
) -> None:
    """The application was thinking about it, and is asked for its answer."""
    with Engine(server, sock, linger=LONG) as engine, client(sock) as late:
        late.sendall(UPGRADE % b"/refuse-later")
        engine.wait_for("^websocket /refuse-later$")
        drain(engine)
        engine.release()
        assert until_1012(late).startswith(b"HTTP/1.1 101")
        late.close()
        assert "log " not in engine.ended()


def test_tls_clients_that_say_nothing_do_not_hold_up_the_stop(
    server: str, sock: socket.socket, files: Path
) -> None:
    """Neither one that never answers the end of TLS, nor one in its handshake."""
    with (
        Engine(server, sock, linger=0.3, **tls_options(files)) as engine,
        client(sock) as plain,
        client(sock),
        tls_context(files).wrap_socket(plain, server_hostname="localhost") as idle,
    ):
        idle.sendall(HEAD % b"/")
        answer(idle)
        start = time.monotonic()
        engine.stop()
        assert time.monotonic() - start < SOON
