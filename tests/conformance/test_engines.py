"""The engines behave alike: each test holds on every server, on real sockets."""

from __future__ import annotations

import json
import re
import socket
import ssl
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from djasgi.options import SERVERS
from tests.support.engine import Engine
from tests.support.wire import (
    HEAD,
    PATIENCE,
    answer,
    client,
    get,
    listener,
    make_certificates,
    raw_websocket,
    seconds_until_closed,
    tls_context,
    tls_options,
    upgrade,
    websocket,
)

ALIVE = 0.6
"""Seconds: the shared engine's limit for a head; an idle client has twice as long."""


def trickle_until_closed(sock: socket.socket, pieces: Iterator[bytes]) -> float:
    """Send a piece ten times a second; how long the peer leaves the connection open."""
    start = time.monotonic()
    sock.settimeout(0.1)
    try:
        for piece in pieces:
            sock.sendall(piece)
            try:
                assert sock.recv(100) == b""
            except TimeoutError:
                continue
            break
    except (ConnectionResetError, BrokenPipeError):
        pass
    return time.monotonic() - start


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with listener() as listening:
        yield listening


@pytest.fixture(scope="module", params=SERVERS)
def shared(request: pytest.FixtureRequest) -> Iterator[tuple[Engine, socket.socket]]:
    """An engine with short limits, for the tests that do not stop it."""
    with (
        listener() as listening,
        Engine(
            request.param,
            listening,
            keep_alive=ALIVE * 2,
            header_timeout=ALIVE,
            ws_max_size=100_000,
            ws_ping_interval=0,
            ws_ping_timeout=0,
        ) as engine,
    ):
        yield engine, listening
        output = engine.stop()
    assert "lifespan" not in output
    assert "ResourceWarning" not in output


# Sockets


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_serves_every_family_at_once(server: str, loop: str, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with ExitStack() as stack:
        sockets = [
            stack.enter_context(listener(family, path))
            for family in ("tcp4", "tcp6", "unix")
        ]
        path.chmod(0o640)
        engine = stack.enter_context(Engine(server, *sockets, loop=loop))

        for sock in sockets:
            status, _, body = get(sock, "/scope")
            scope = json.loads(body)
            assert (status, scope["scheme"]) == (200, "http")
            if sock.family == socket.AF_UNIX:
                assert scope["client"] is None
            else:
                host, port = sock.getsockname()[:2]
                assert scope["client"][0] == host
                assert scope["server"] == [host, port]
            with websocket(sock) as ws:
                ws.send("over and back")
                assert ws.recv() == "over and back"

        output = engine.stop()
        assert "lifespan" not in output
        assert "log " not in output, "silent at info, but for errors"
        # The sockets are shared: others still accept on them, and own the file.
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        for sock in sockets:
            client(sock).close()


def test_listens_by_itself_on_a_socket_that_is_only_bound(server: str) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        with Engine(server, sock) as engine:
            assert get(sock)[2] == b"hello"
            engine.stop()


def test_closed_connections_give_their_descriptors_back(
    server: str, sock: socket.socket
) -> None:
    def descriptors() -> int:
        return len(list(Path(f"/proc/{engine.process.pid}/fd").iterdir()))

    with Engine(server, sock, ws_ping_interval=60, ws_ping_timeout=0) as engine:
        get(sock)
        before = descriptors()
        for _ in range(20):
            get(sock)
            raw_websocket(sock).close()
        end = time.monotonic() + PATIENCE

        # keep_alive is 95 s and the ping interval 60 s.
        while descriptors() > before and time.monotonic() < end:
            get(sock)

        assert descriptors() <= before


# Time limits


def test_idle_connection_is_closed_after_keep_alive(
    shared: tuple[Engine, socket.socket],
) -> None:
    with client(shared[1]) as sock:
        for _ in range(2):
            sock.sendall(HEAD % b"/")
            assert answer(sock)[2] == b"hello"

        assert ALIVE * 1.8 < seconds_until_closed(sock) < PATIENCE / 2


def test_silent_client_is_cut_after_the_header_timeout(
    server: str, sock: socket.socket
) -> None:
    with Engine(server, sock, header_timeout=0.5), client(sock) as silent:
        assert 0.4 < seconds_until_closed(silent) < PATIENCE / 2


def test_trickling_client_is_cut_after_the_header_timeout(
    server: str, sock: socket.socket
) -> None:
    with Engine(server, sock, header_timeout=0.5), client(sock) as slow:
        pieces = iter([b"GET / HTTP/1.1\r\n", *[b"X-Slow: 1\r\n"] * 100])
        assert 0.4 < trickle_until_closed(slow, pieces) < PATIENCE / 2


def test_header_timeout_holds_for_further_requests(
    server: str, sock: socket.socket
) -> None:
    with Engine(server, sock, header_timeout=0.5), client(sock) as slow:
        for _ in range(3):
            slow.sendall(HEAD % b"/")
            answer(slow)

        slow.sendall(b"GET / HT")

        assert 0.4 < seconds_until_closed(slow) < PATIENCE / 2


def test_empty_line_begins_a_head(server: str, sock: socket.socket) -> None:
    """It must not switch the limits off; hypercorn refuses it at once."""
    with Engine(server, sock, header_timeout=0.5), client(sock) as slow:
        slow.sendall(HEAD % b"/")
        answer(slow)
        slow.sendall(b"\r\n")
        assert seconds_until_closed(slow) < PATIENCE / 2


def test_header_timeout_beats_a_shorter_keep_alive(
    server: str, sock: socket.socket
) -> None:
    """A head that has begun has its own time, not what is left of the idle time."""
    with (
        Engine(server, sock, header_timeout=0, keep_alive=0.3) as engine,
        client(sock) as slow,
    ):
        for _ in range(2):
            slow.sendall((HEAD % b"/")[:20])
            slow.settimeout(0.7)
            with pytest.raises(TimeoutError):
                slow.recv(1)
            slow.settimeout(PATIENCE)
            slow.sendall((HEAD % b"/")[20:])
            assert answer(slow)[2] == b"hello"
        engine.stop()


def test_keep_alive_of_zero_closes_after_the_answer(
    server: str, sock: socket.socket
) -> None:
    with Engine(server, sock, keep_alive=0), client(sock) as once:
        once.sendall(HEAD % b"/")
        assert answer(once)[2] == b"hello"
        assert seconds_until_closed(once) < PATIENCE / 2


def test_limits_do_not_touch_a_slow_body_or_a_running_request(
    shared: tuple[Engine, socket.socket],
) -> None:
    engine, listening = shared
    with client(listening) as slow, client(listening) as running:
        running.sendall(HEAD % b"/hold")
        engine.wait_for("^http /hold$")
        slow.sendall(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n")
        slow.settimeout(ALIVE / 5)
        for _ in range(20):
            with pytest.raises(TimeoutError):
                slow.recv(1)
            slow.sendall(b"x")
        slow.settimeout(PATIENCE)
        assert answer(slow)[2] == b"20"
        engine.release()
        assert answer(running)[2] == b"held"


def test_limits_do_not_touch_a_websocket(shared: tuple[Engine, socket.socket]) -> None:
    with websocket(shared[1]) as ws:
        with pytest.raises(TimeoutError):
            ws.recv(timeout=ALIVE * 3)
        ws.send("still here")
        assert ws.recv() == "still here"


# Headers


def test_date_but_no_server_by_default(shared: tuple[Engine, socket.socket]) -> None:
    for path in ("/", "/raise"):
        _, fields, body = get(shared[1], path)
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", fields["date"])
        assert "server" not in fields
        assert not re.search(rb"(?i)uvicorn|hypercorn|daphne", body)


def test_server_is_the_name_only_and_date_can_go(
    server: str, sock: socket.socket
) -> None:
    with Engine(server, sock, server_header=True, date_header=False):
        _, fields, _ = get(sock)
        assert fields["server"] == server
        assert "date" not in fields


# The application


def test_exception_is_answered_with_500_and_logged_once(
    server: str, sock: socket.socket
) -> None:
    with Engine(server, sock) as engine, client(sock) as cut:
        assert get(sock, "/raise")[0] == 500
        cut.sendall(HEAD % b"/raise-late")
        with pytest.raises(IncompleteRead):
            answer(cut)
        assert get(sock)[0] == 200
        output = engine.stop()

    for reason in ("raised on purpose", "raised late on purpose"):
        assert output.count(f"\nRuntimeError: {reason}") == 1
    assert (
        re.findall(r"^log (.*)", output, re.MULTILINE)
        == ["djasgi ERROR exception in the application"] * 2
    )
    assert output.count("Traceback") == 2


def test_application_that_returns_without_an_answer_is_a_500(
    shared: tuple[Engine, socket.socket],
) -> None:
    assert get(shared[1], "/nothing")[0] == 500


def test_connection_closes_when_the_application_says_so(
    shared: tuple[Engine, socket.socket],
) -> None:
    with client(shared[1]) as sock:
        sock.sendall(HEAD % b"/close")
        assert answer(sock)[1]["connection"] == "close"
        assert seconds_until_closed(sock) < ALIVE


def test_response_that_is_cut_short_does_not_look_whole(
    shared: tuple[Engine, socket.socket],
) -> None:
    """Not to a client of HTTP/1.0 either, to whom the end of the connection is the end."""
    with client(shared[1]) as sock:
        sock.sendall(b"GET /raise-late HTTP/1.0\r\n\r\n")
        received = b""
        with suppress(ConnectionResetError):
            while chunk := sock.recv(1000):
                received += chunk
            # No reset: then it is in chunks, of which the last is missing.
            assert b"chunked" in received
            assert not received.endswith(b"0\r\n\r\n")


# HTTP/2 in clear text


def test_upgrade_to_http2_is_not_taken(shared: tuple[Engine, socket.socket]) -> None:
    with client(shared[1]) as sock:
        sock.sendall(
            b"GET /scope HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\n"
            b"Connection: Upgrade, HTTP2-Settings\r\n"
            b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        )
        status, _, body = answer(sock)
        assert (status, json.loads(body)["http_version"]) == (200, "1.1")


def test_preface_of_http2_is_not_answered_in_kind(
    shared: tuple[Engine, socket.socket],
) -> None:
    with client(shared[1]) as sock, suppress(ConnectionResetError):
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
        received = b""
        while chunk := sock.recv(1000):
            received += chunk
        assert received[:4] in (b"", b"HTTP")


# Websockets


def refusal(ws: ClientConnection, message: str | Iterator[str]) -> int | None:
    """The code with which the peer closes on `message`; None if it does not."""
    try:
        ws.send(message)
        ws.recv(timeout=PATIENCE)
    except ConnectionClosed:
        return ws.protocol.close_code
    return None


def test_message_over_the_limit_is_refused(
    shared: tuple[Engine, socket.socket],
) -> None:
    engine, listening = shared
    for message in ("x" * 100_001, "\u20ac" * 34_000):
        with websocket(listening) as ws:
            ws.send("x" * 100_000)
            assert ws.recv() == "x" * 100_000
            assert refusal(ws, message) in (1009, 1006)
        engine.wait_for("^disconnect")


def test_message_in_fragments_over_the_limit_is_refused(
    shared: tuple[Engine, socket.socket],
) -> None:
    with websocket(shared[1]) as ws:
        assert refusal(ws, iter(["x" * 10_000] * 11)) in (1009, 1006)


def test_limit_is_for_received_messages(shared: tuple[Engine, socket.socket]) -> None:
    with websocket(shared[1], "/large") as ws:
        assert ws.recv() == "x" * 300_000


def test_pings(server: str, sock: socket.socket) -> None:
    with (
        Engine(server, sock, ws_ping_interval=0.3, ws_ping_timeout=0.3) as engine,
        raw_websocket(sock) as dead,
        websocket(sock, ping_interval=None) as alive,
    ):
        received = b""
        with suppress(ConnectionResetError):
            while chunk := dead.recv(1000):
                received += chunk
        assert received[:1] == b"\x89", "a ping"
        assert re.search(rb"\x88.\x03\xf3", received, re.DOTALL), "a close with 1011"
        engine.wait_for("^disconnect 1006$")
        with pytest.raises(TimeoutError):
            alive.recv(timeout=2)
        alive.send("alive")
        assert alive.recv() == "alive"


# TLS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    make_certificates(folder)
    return folder


def tls_get(of: socket.socket, context: ssl.SSLContext) -> bytes:
    with (
        client(of) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        assert sock.selected_alpn_protocol() == "http/1.1"
        sock.sendall(HEAD % b"/scope")
        return answer(sock)[2]


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_tls(server: str, sock: socket.socket, files: Path, loop: str) -> None:
    options = tls_options(
        files,
        loop=loop,
        ssl_keyfile=str(files / "encrypted.key"),
        ssl_keyfile_password_file=str(files / "password"),
    )
    with Engine(server, sock, **options) as engine:
        body = tls_get(sock, tls_context(files, "h2"))
        assert json.loads(body)["scheme"] == "https"
        # Not the client of websockets: over TLS it may wait for what it has read.
        with tls_context(files).wrap_socket(
            client(sock), server_hostname="localhost"
        ) as ws:
            upgrade(ws)
            ws.sendall(b"\x81\x87" + bytes(4) + b"private")
            while (opcode := ws.recv(1)) == b"\x89":  # a ping
                ws.recv(ws.recv(1)[0])
            assert opcode + ws.recv(8) == b"\x81\x07private"
            with client(sock) as plain:
                plain.sendall(HEAD % b"/")
                assert not plain.recv(1000).startswith(b"HTTP")
            engine.ask_to_stop()
            assert ws.recv(4) == b"\x88\x02" + (1012).to_bytes(2, "big")
        assert "log " not in engine.ended()


def test_tls_minimum_version_and_ciphers(
    server: str, sock: socket.socket, files: Path
) -> None:
    old = tls_context(files)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with Engine(server, sock, **tls_options(files, ssl_min_version="1.3")):
        assert tls_get(sock, tls_context(files))
        with pytest.raises(ssl.SSLError):
            tls_get(sock, old)
    with (
        listener() as second,
        Engine(server, second, **tls_options(files, ssl_ciphers="ECDHE+CHACHA20")),
    ):
        assert tls_get(second, old)
        old.set_ciphers("ECDHE+AESGCM")
        with pytest.raises(ssl.SSLError):
            tls_get(second, old)


def test_tls_client_certificate(server: str, sock: socket.socket, files: Path) -> None:
    context = tls_context(files)
    options = tls_options(
        files, ssl_ca_certs=str(files / "ca.pem"), ssl_cert_reqs="required"
    )
    with Engine(server, sock, **options) as engine:
        with pytest.raises((ssl.SSLError, ConnectionResetError, BrokenPipeError)):
            tls_get(sock, context)
        context.load_cert_chain(files / "client.pem", files / "client.key")
        assert tls_get(sock, context)
        resume(sock, context)
        engine.stop()
        assert engine.log.count("http /scope") == 3


def resume(of: socket.socket, context: ssl.SSLContext) -> None:
    """Come back with the session of before, as clients do."""
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    session = None
    for _ in range(2):
        with (
            client(of) as plain,
            context.wrap_socket(
                plain, server_hostname="localhost", session=session
            ) as sock,
        ):
            sock.sendall(HEAD % b"/scope")
            assert answer(sock)[0] == 200
            session = sock.session


def test_tls_handshake_is_part_of_the_head(
    server: str, sock: socket.socket, files: Path
) -> None:
    with (
        Engine(server, sock, **tls_options(files, header_timeout=0.5)),
        client(sock) as silent,
    ):
        assert seconds_until_closed(silent) < PATIENCE / 2


# Native settings


def test_time_to_read_begins_anew_with_each_request(sock: socket.socket) -> None:
    """hypercorn's read_timeout, for requests that its task need not read."""
    seconds = 1
    native = [["read_timeout", str(seconds)]]
    with Engine("hypercorn", sock, native=native), client(sock) as kept:
        start = time.monotonic()
        while time.monotonic() - start < 1.5 * seconds:
            kept.sendall(HEAD % b"/")
            assert answer(kept)[0] == 200
            time.sleep(seconds / 10)  # noqa: TID251 - a client that is not in a hurry


def test_native_settings_take_effect(sock: socket.socket) -> None:
    with (
        Engine("hypercorn", sock, native=[["keep_alive_max_requests", "2"]]),
        client(sock) as kept,
    ):
        kept.sendall(HEAD % b"/")
        assert "connection" not in answer(kept)[1]
        kept.sendall(HEAD % b"/")
        assert answer(kept)[1]["connection"] == "close"
    with (
        listener() as second,
        Engine("uvicorn", second, native=[["ws_per_message_deflate", "off"]]),
        websocket(second, compression="deflate") as ws,
    ):
        assert not ws.protocol.extensions
    with (
        listener() as third,
        Engine("daphne", third, native=[["websocket_connect_timeout", "1"]]),
        pytest.raises(InvalidStatus, match="403"),
    ):
        websocket(third, "/refuse-later", open_timeout=PATIENCE)


def test_no_request_is_lost_among_many(shared: tuple[Engine, socket.socket]) -> None:
    host, port = shared[1].getsockname()
    for _ in range(20):
        connection = HTTPConnection(host, port, timeout=PATIENCE)
        for _ in range(10):
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"hello"
        connection.close()
