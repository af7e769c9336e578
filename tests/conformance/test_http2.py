"""HTTP/2 over TLS, on the servers that speak it: the same as HTTP/1 to applications."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from djasgi.options import SERVERS
from djasgi.servers import support
from djasgi.servers.base import Refused
from tests.support.engine import MEDIUM, Engine
from tests.support.http2 import Client, Stream
from tests.support.probes import probes
from tests.support.server import Server, copy_project
from tests.support.wire import (
    HEAD,
    answer,
    client,
    listener,
    make_certificates,
    tls_context,
    tls_options,
)

ABLE = [s for s in SERVERS if not isinstance(support(s)["http2"], Refused)]

# RFC 9113, section 7
INTERNAL_ERROR = 2
ENHANCE_YOUR_CALM = 11

MAX_BODY = 1000

TOO_LARGE = HTTPStatus.REQUEST_ENTITY_TOO_LARGE.phrase.encode()  # Python's name for it


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    make_certificates(folder)
    return folder


def options(files: Path, **more: Any) -> dict[str, Any]:
    return tls_options(files, http2=True, access_log=True, **more)


@pytest.fixture(scope="module", params=ABLE)
def engine(
    request: pytest.FixtureRequest, files: Path
) -> Iterator[tuple[Engine, socket.socket]]:
    more = options(files, max_body_size=MAX_BODY, max_head_size=4096)
    with listener() as sock, Engine(request.param, sock, **more) as running:
        yield running, sock
        output = running.stop()
        assert not re.findall(r"^log (?!djasgi).*", output, re.MULTILINE)


@pytest.fixture
def shared(
    engine: tuple[Engine, socket.socket], files: Path
) -> Iterator[tuple[Engine, Client]]:
    engine[0].forget()
    with Client(client(engine[1]), tls_context(files)) as connected:
        yield engine[0], connected


Shared = tuple[Engine, Client]


def test_able() -> None:
    assert ABLE == ["hypercorn", "daphne"]


def test_scope(shared: Shared) -> None:
    fields = [(b"x-a", b"1"), (b"b", b"2"), (b"x-a", b"3"), (b"x_under", b"1")]
    fields += [(b"cookie", b"x=1"), (b"cookie", b"y=2"), (b"daphne-root-path", b"/x")]
    stream = shared[1].get("/scope/%C3%A9?q=%20", *fields)
    assert stream.status == 200
    scope = json.loads(stream.body)
    assert scope.pop("client")[0] == "127.0.0.1"
    assert scope.pop("server")[0] == "127.0.0.1"
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "2",
        "method": "GET",
        "scheme": "https",
        "path": "/scope/\xe9",
        "raw_path": "/scope/%C3%A9",
        "query_string": "q=%20",
        "root_path": "",
        "headers": [
            ["host", "localhost"],
            ["x-a", "1"],
            ["b", "2"],
            ["x-a", "3"],
            ["cookie", "x=1; y=2"],
        ],
        "state": {},
        "types": ["bytes", "tuple"],
    }


def test_response(shared: Shared) -> None:
    own = [("Set-Cookie", "b=1"), ("Connection", "close"), ("Set-Cookie", "a=2")]
    steps: list[Any] = [
        {"type": "http.response.start", "status": 201, "headers": own},
        {"type": "http.response.body", "body": "one", "more_body": True},
        {"type": "http.response.body", "body": "two"},
    ]
    stream = shared[1].get("/script?" + quote(json.dumps(steps)))
    names = sorted(name for name, _ in stream.headers)
    assert names == [b":status", b"date", b"set-cookie", b"set-cookie"]
    cookies = [value for name, value in stream.headers if name == b"set-cookie"]
    assert (stream.status, cookies, stream.body) == (201, [b"b=1", b"a=2"], b"onetwo")


def test_many_at_once_and_large(shared: Shared) -> None:
    ids = [shared[1].request("/medium") for _ in range(3)]
    ids += [shared[1].request("/") for _ in range(20)]
    sizes = [len(shared[1].answer(stream_id).body) for stream_id in ids]
    assert sizes == [MEDIUM] * 3 + [5] * 20


def test_upload(shared: Shared) -> None:
    stream = shared[1].get("/body", method="POST", body=bytes(MAX_BODY))
    assert (stream.status, stream.body) == (200, b"%d" % MAX_BODY)


def test_head_has_no_body(shared: Shared) -> None:
    stream = shared[1].get("/", method="HEAD")
    assert (stream.status, stream.body) == (200, b"")


def test_failures(shared: Shared) -> None:
    stream = shared[1].get("/raise")
    assert (stream.status, stream.body) == (500, b"Internal Server Error")
    cut = shared[1].get("/raise-late")
    assert (cut.ended, cut.reset) == (False, INTERNAL_ERROR)
    assert shared[1].get().body == b"hello"
    shared[0].wait_for("^log djasgi ERROR exception in the application")


def refused(stream: Stream, status: int, phrase: bytes) -> None:
    names = sorted(name for name, _ in stream.headers)
    assert names == [b":status", b"content-length", b"content-type", b"date"]
    assert (stream.status, stream.body) == (status, phrase)


def test_refusals(shared: Shared) -> None:
    running, connected = shared
    for target, method in (("/a#b", "GET"), ("/", "FOOBAR"), ("*", "GET")):
        refused(connected.get(target, method=method), 400, b"Bad Request")
        running.wait_for("^log djasgi.access INFO 127.0.0.1 - - HTTP/- 400 ")
    large = (b"x", b"x" * 5000)
    refused(connected.get("/", large), 431, b"Request Header Fields Too Large")
    assert connected.get().body == b"hello"


def test_body_that_is_too_large(shared: Shared) -> None:
    said = (b"content-length", b"%d" % (MAX_BODY + 1))
    stream_id = shared[1].request("/body", said, method="POST", end=False)
    refused(shared[1].answer(stream_id), 413, TOO_LARGE)
    more = bytes(MAX_BODY + 1)
    stream_id = shared[1].request("/body", method="POST", body=more, end=False)
    refused(shared[1].answer(stream_id), 413, TOO_LARGE)
    assert shared[1].get().body == b"hello"


@pytest.mark.parametrize("server", ABLE)
def test_client_that_resets_streams_without_end_is_sent_away(
    server: str, files: Path
) -> None:
    """Each would cost an application (CVE-2023-44487)."""
    patience = options(files, graceful_timeout=1)
    with listener() as sock, Engine(server, sock, **patience) as running:
        with Client(client(sock), tls_context(files)) as flooding, suppress(OSError):
            for _ in range(40):
                for _ in range(50):
                    stream_id = flooding.begin("/hold")
                    flooding.connection.reset_stream(stream_id)
                flooding.flush()
            flooding.until_closed()
        with Client(client(sock), tls_context(files)) as next_one:
            assert next_one.get().body == b"hello"
        output = running.stop()
    assert [code for code, _ in flooding.told_to_go][-1:] == [ENHANCE_YOUR_CALM]
    # 200, and what has come by the time that passes meanwhile.
    assert output.count("http /hold") < 600
    assert not re.findall(r"^log (?!djasgi).*", output, re.MULTILINE)


@pytest.mark.parametrize("server", ABLE)
def test_client_that_leaves_some_streams_is_served_on(server: str, files: Path) -> None:
    with (
        listener() as sock,
        Engine(server, sock, **options(files)) as running,
        Client(client(sock), tls_context(files)) as leaving,
    ):
        for _ in range(5):
            left = [leaving.request("/silent") for _ in range(20)]
            kept = [leaving.request("/hold") for _ in range(20)]
            for stream_id in left:
                leaving.connection.reset_stream(stream_id)
            leaving.flush()
            for _ in kept:
                running.wait_for("^http /hold")
            running.release()
            for stream_id in kept:
                assert leaving.answer(stream_id).body == b"held"
        assert not leaving.told_to_go


@pytest.mark.parametrize("server", ABLE)
def test_upload_that_nobody_reads_keeps_nobody_waiting(
    server: str, files: Path
) -> None:
    """Neither the other streams nor its own application, nor more than a window of it."""
    steps: list[Any] = ["wait", {"type": "http.response.start", "status": 200}]
    steps += [{"type": "http.response.body", "body": "early"}, "say"]
    with (
        listener() as sock,
        Engine(server, sock, **options(files)) as running,
        Client(client(sock), tls_context(files)) as connected,
    ):
        target = "/script?" + quote(json.dumps(steps))
        stream_id = connected.request(target, method="POST", end=False)
        connected.upload(stream_id, 300_000)
        running.wait_for("^http /script")
        assert connected.get().body == b"hello"
        running.release()
        assert connected.answer(stream_id).body == b"early"
        running.wait_for("^said")
        assert connected.get().body == b"hello"


@pytest.mark.parametrize("server", ABLE)
def test_upload_that_is_read_in_its_time(server: str, files: Path) -> None:
    with (
        listener() as sock,
        Engine(server, sock, **options(files)) as running,
        Client(client(sock), tls_context(files)) as connected,
    ):
        ids = [connected.request("/body", method="POST", end=False) for _ in range(3)]
        for _ in range(3):
            for stream_id in ids:
                assert connected.upload(stream_id, 200_000, end=False) == 0
        for stream_id in ids:
            connected.connection.end_stream(stream_id)
        connected.flush()
        assert [connected.answer(i).body for i in ids] == [b"600000"] * 3
        assert not re.findall(r"^log (?!djasgi).*", running.stop(), re.MULTILINE)


def test_application_is_told_that_the_client_has_gone(shared: Shared) -> None:
    running, connected = shared
    stream_id = connected.request("/silent")
    running.wait_for("^http /silent$")
    connected.connection.reset_stream(stream_id)
    connected.flush()
    running.wait_for("^disconnect /silent$")
    assert connected.get().body == b"hello"


def test_access_log(shared: Shared) -> None:
    shared[1].get("/logged?secret")
    shared[0].wait_for(
        r"^log djasgi.access INFO 127.0.0.1 GET /logged HTTP/2 200 5 [\d.]+ms \w{32}$"
    )


def test_http_1_is_spoken_too(
    engine: tuple[Engine, socket.socket], files: Path
) -> None:
    with tls_context(files).wrap_socket(
        client(engine[1]), server_hostname="localhost"
    ) as sock:
        sock.sendall(HEAD % b"/")
        assert answer(sock)[2] == b"hello"


@pytest.mark.parametrize("server", ABLE)
def test_drain(server: str, files: Path) -> None:
    more = options(files, linger=0.3)
    with (
        listener() as sock,
        Engine(server, sock, **more) as running,
        Client(client(sock), tls_context(files)) as busy,
        Client(client(sock), tls_context(files)) as idle,
    ):
        assert idle.get().body == b"hello"
        held = busy.request("/hold")
        running.wait_for("^http /hold$")
        running.ask_to_stop()
        running.wait_for("^draining$")
        while not busy.told_to_go:
            busy.read()
        running.release()
        assert busy.answer(held).body == b"held"
        for connected in (busy, idle):
            told = connected.until_closed()
            assert told[0] == (0, 2**31 - 1)
        output = running.ended()
        assert "log djasgi WARNING" not in output
        assert not re.findall(r"^log (?!djasgi).*", output, re.MULTILINE)


def checked(stream: Stream) -> tuple[int, bytes]:
    """The answer to a health check, which nobody is to store."""
    assert dict(stream.headers)[b"cache-control"] == b"no-store"
    return stream.status, stream.body


@probes("health_path", "ready_path")
@pytest.mark.parametrize("server", ABLE)
def test_health(server: str, files: Path, tmp_path: Path) -> None:
    """Outside of Django, which has no such pages; and not ready once it is to stop."""
    words = ["--server", server, "--http2", "--drain-delay", "2"]
    words += ["--health-path", "/live", "--ready-path", "/ready"]
    words += ["--ssl-certfile", str(files / "localhost.pem")]
    words += ["--ssl-keyfile", str(files / "localhost.key")]
    project = copy_project("live", tmp_path)
    with Server(project, *words) as process:
        with Client(process.ready().connect(), tls_context(files)) as connected:
            for path in ("/live", "/ready"):
                assert checked(connected.get(path)) == (200, b"ok\n")
                assert checked(connected.get(path, method="HEAD")) == (200, b"")
            assert connected.get("/live", method="POST", body=b"").status == 404
            assert connected.get("/live/").status == 404
            process.signal(signal.SIGTERM)
            process.wait_for("not ready any more; stopping in 2 s")
            assert checked(connected.get("/ready")) == (503, b"stopping\n")
            assert checked(connected.get("/live")) == (200, b"ok\n")
        assert process.wait() == 0
    assert not process.matches("(GET|HEAD) /(live|ready) ")
