"""What HTTP/1 clients and applications see: one answer, whichever server gives it."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import quote

import pytest

from djasgi.options import SERVERS
from tests.support.engine import Engine
from tests.support.wire import HEAD, answer, client, listener

Shared = tuple[str, Engine, dict[str, socket.socket]]


@pytest.fixture(scope="module", params=SERVERS)
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shared]:
    """One engine on every kind of socket, for all tests that do not stop it."""
    path = tmp_path_factory.mktemp("http") / "s"
    with ExitStack() as stack:
        sockets = {
            family: stack.enter_context(listener(family, path))
            for family in ("tcp4", "tcp6", "unix")
        }
        options: dict[str, Any] = {"access_log": True, "log_level": "info"}
        engine = stack.enter_context(
            Engine(request.param, *sockets.values(), **options)
        )
        yield request.param, engine, sockets
        output = engine.stop()
        assert "ResourceWarning" not in output
        assert set(re.findall(r"^log (\S+)", output, re.MULTILINE)) <= {
            *("djasgi", "djasgi.access")
        }


def exchange(shared: Shared, request: bytes, family: str = "tcp4") -> bytes:
    """Everything that comes back until the connection is idle, or closed."""
    with client(shared[2][family]) as sock:
        sock.sendall(request)
        return rest(sock)


def rest(sock: socket.socket) -> bytes:
    received = b""
    with suppress(TimeoutError, ConnectionResetError):
        while chunk := sock.recv(65_536):
            received += chunk
    return received


def head(*lines: str, start: str = "GET /scope HTTP/1.1", host: str = "h") -> bytes:
    fields = [f"Host: {host}", *lines] if host else lines
    return "\r\n".join([start, *fields, "", ""]).encode("latin-1")


def scope_of(shared: Shared, request: bytes, family: str = "tcp4") -> dict[str, Any]:
    with client(shared[2][family]) as sock:
        sock.sendall(request)
        status, _, body = answer(sock)
    assert status == 200, body
    scope: dict[str, Any] = json.loads(body)
    return scope


def script(*steps: Any) -> str:
    """The target that makes the application take these steps."""
    return "/script?" + quote(json.dumps(steps))


def start(status: int = 200, *headers: tuple[str, str]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(text: str = "", more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": text, "more_body": more}


# What the application sees


@pytest.mark.parametrize("family", ["tcp4", "tcp6", "unix"])
def test_scope(shared: Shared, family: str) -> None:
    request = head(
        "B: 2", "a: 1", "A:  3 \t", "Cookie: x=1", "Cookie: y=2", "L: caf\xe9 \xc3\x85"
    ).replace(b"/scope", b"/scope?q=%20&r")

    scope = scope_of(shared, request, family)

    peers = [scope.pop("client"), scope.pop("server")]
    kinds = scope.pop("types")
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/scope",
        "raw_path": "/scope",
        "query_string": "q=%20&r",
        "root_path": "",
        "headers": [
            ["host", "h"],
            ["b", "2"],
            ["a", "1"],
            ["a", "3"],
            ["cookie", "x=1"],
            ["cookie", "y=2"],
            ["l", "caf\xe9 \xc3\x85"],
        ],
        "state": {},
    }
    if family == "unix":
        assert (peers, kinds) == ([None, None], ["bytes"])
    else:
        host, port = shared[2][family].getsockname()[:2]
        assert peers[1] == [host, port]
        assert peers[0][0] == host
        assert kinds == ["bytes", "tuple"]


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        ("/scope/%C3%A9%2F%20", "/scope/\xe9/ ", "/scope/%C3%A9%2F%20", ""),
        ("/scope/%ff", "/scope/\ufffd", "/scope/%ff", ""),
        ("//scope//", "//scope//", "//scope//", ""),
        ("/scope?a?b", "/scope", "/scope", "a?b"),
        ("/scope?", "/scope", "/scope", ""),
        ('/scope/"<>^`{|}', '/scope/"<>^`{|}', '/scope/"<>^`{|}', ""),
    ],
)
def test_target(
    shared: Shared, target: str, path: str, raw_path: str, query: str
) -> None:
    scope = scope_of(shared, head(start=f"GET {target} HTTP/1.1"))
    assert (scope["path"], scope["raw_path"]) == (path, raw_path)
    assert scope["query_string"] == query


def test_target_with_a_host_is_a_path_and_its_host_counts(shared: Shared) -> None:
    for target, path in (
        ("http://other:81/scope?q", "/scope"),
        ("HTTPS://x/scope?q", "/scope"),
    ):
        scope = scope_of(shared, head(start=f"GET {target} HTTP/1.1"))
        host = target.partition("//")[2].partition("/")[0].partition("?")[0]
        assert (scope["path"], scope["raw_path"]) == (path, path)
        assert scope["query_string"] == "q"
        assert [v for k, v in scope["headers"] if k == "host"] == [host]


def test_asterisk(shared: Shared) -> None:
    scope = scope_of(shared, head(start="OPTIONS * HTTP/1.1"))
    assert (scope["path"], scope["method"]) == ("*", "OPTIONS")


def test_http_1_0(shared: Shared) -> None:
    scope = scope_of(shared, head(start="GET /scope HTTP/1.0", host=""))
    assert scope["http_version"] == "1.0"
    assert scope["headers"] == []


def test_headers_that_pretend_to_be_others_are_not_seen(shared: Shared) -> None:
    scope = scope_of(
        shared, head("X_Forwarded_For: 1.2.3.4", "Daphne-Root-Path: /x", "X-Ok: 1")
    )
    assert scope["headers"] == [["host", "h"], ["x-ok", "1"]]
    assert scope["root_path"] == ""


def test_trailers_are_not_headers(shared: Shared) -> None:
    request = head("Transfer-Encoding: chunked", start="POST /hold HTTP/1.1")
    with client(shared[2]["tcp4"]) as sock:
        sock.sendall(request.replace(b"/hold", b"/scope"))
        sock.sendall(b"0\r\nX-Late: 1\r\n\r\n")
        names = [name for name, _ in json.loads(answer(sock)[2])["headers"]]
    assert names == ["host", "transfer-encoding"]


def test_upgrade_to_something_else_is_an_ordinary_request(shared: Shared) -> None:
    """With its body, and with the request that follows."""
    request = head(
        *("Connection: upgrade", "Upgrade: h2c", "Content-Length: 4"),
        start="POST /body HTTP/1.1",
    )
    with client(shared[2]["tcp4"]) as sock:
        for pieces in ([request + b"four"], [request, b"fo", b"ur"]):
            for piece in pieces:
                sock.sendall(piece)
            assert answer(sock)[2] == b"4"
        last = head("Connection: close", start="GET / HTTP/1.1")
        sock.sendall(request + b"four" + last)
        response = rest(sock)
    assert re.findall(rb"HTTP/1.1 (\d+)", response) == [b"200", b"200"]
    assert response.endswith(b"\r\n\r\nhello")


# What clients see


def framing(response: bytes) -> tuple[int, dict[str, str], bytes]:
    first, _, remainder = response.partition(b"\r\n")
    fields, _, content = remainder.partition(b"\r\n\r\n")
    pairs = [line.split(": ", 1) for line in fields.decode("latin-1").split("\r\n")]
    names = [name.lower() for name, _ in pairs]
    assert names.count("date") == 1
    assert len(set(names)) == len(names), names
    match = re.fullmatch(rb"HTTP/1\.1 (\d{3}) ([\w ]+)", first)
    assert match, first
    values = {name.lower(): value for name, value in pairs if name.lower() != "date"}
    return int(match[1]), values, content


CHUNKED = {"transfer-encoding": "chunked"}
FIVE = {"content-length": "5"}
CLOSE = {"connection": "close"}


@pytest.mark.parametrize(
    ("line", "steps", "expected"),
    [
        (
            "GET 1.1",
            [start(), body("hello")],
            (200, CHUNKED, b"5\r\nhello\r\n0\r\n\r\n"),
        ),
        ("GET 1.0", [start(), body("hello")], (200, CLOSE, b"hello")),
        ("HEAD 1.1", [start(), body("hello")], (200, {}, b"")),
        (
            "GET 1.1",
            [start(200, ("Content-Length", "5")), body("hello")],
            (200, FIVE, b"hello"),
        ),
        (
            "GET 1.0",
            [start(200, ("Content-Length", "5")), body("hello")],
            (200, FIVE | CLOSE, b"hello"),
        ),
        (
            "HEAD 1.1",
            [start(200, ("Content-Length", "5")), body("hello")],
            (200, FIVE, b""),
        ),
        ("GET 1.1", [start(204), body()], (204, {}, b"")),
        ("GET 1.1", [start(304), body("hello")], (304, {}, b"")),
        ("GET 1.1", [start(201), body()], (201, CHUNKED, b"0\r\n\r\n")),
        (
            "GET 1.1",
            [start(200, ("Transfer-Encoding", "chunked")), body("hello")],
            (200, CHUNKED, b"5\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "GET 1.0",
            [start(200, ("Transfer-Encoding", "chunked")), body("hello")],
            (200, CLOSE, b"hello"),
        ),
        (
            "GET 1.1",
            [start(), body("a", more=True), body(more=True), body("b")],
            (200, CHUNKED, b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"),
        ),
        (
            "GET 1.1",
            [start(200, ("Connection", "close"), *FIVE.items()), body("hello")],
            (200, FIVE | CLOSE, b"hello"),
        ),
    ],
)
def test_framing(shared: Shared, line: str, steps: list[Any], expected: Any) -> None:
    method, version = line.split()
    request = head(start=f"{method} {script(*steps)} HTTP/{version}")
    # Whatever else there is after the response would be in the way of the next one.
    response = exchange(
        shared, request + head("Connection: close", start="GET / HTTP/1.1")
    )
    first, _, second = response.partition(b"HTTP/1.1 200 OK\r\n")[0], 0, response
    status, fields, content = framing(response)
    if "connection" not in fields:
        content, found, second = content.partition(b"HTTP/1.1 200 OK\r\n")
        assert found
        assert second.endswith(b"\r\n\r\nhello")
    assert (status, fields, content) == expected, first


def test_headers_of_one_name_keep_their_order(shared: Shared) -> None:
    cookies = [("Set-Cookie", "b=1"), ("X-A", "1"), ("Set-Cookie", "a=2")]
    request = head(
        "Connection: close",
        start=f"GET {script(start(200, *cookies), body())} HTTP/1.1",
    )
    response = exchange(shared, request)
    assert re.findall(rb"(?im)^set-cookie: (.*)\r$", response) == [b"b=1", b"a=2"]


def test_names_of_headers_are_in_lower_case_and_in_order(shared: Shared) -> None:
    own = start(200, ("X-One", "1"), ("Content-Type", "text/plain"), ("x-two", "2"))
    request = head("Connection: close", start=f"GET {script(own, body())} HTTP/1.1")
    names = re.findall(rb"(?m)^([\w-]+): ", exchange(shared, request))
    assert b" ".join(names) == (
        b"date x-one content-type x-two transfer-encoding connection"
    )


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("multipart/form-data", "abc"),
        ("multipart/form-data; boundary=aaa", "abc"),
        ("multipart/form-data; boundary=aaa", "--aaa\r\n\r\nb"),
        ("application/x-www-form-urlencoded", "%zz=%\xff&" * 200),
    ],
)
def test_broken_forms_are_the_applications(
    shared: Shared, kind: str, content: str
) -> None:
    fields = f"Content-Type: {kind}", f"Content-Length: {len(content)}"
    request = head(*fields, "Connection: close", start="POST /body HTTP/1.1")
    response = exchange(shared, request + content.encode("latin-1"))
    assert framing(response)[0] == 200
    assert f"\r\n{len(content)}\r\n".encode() in response


def test_headers_may_come_from_an_iterator(shared: Shared) -> None:
    """ASGI says no more than that they can be iterated over."""
    response = exchange(shared, head(start="GET /iterator HTTP/1.1"))
    assert framing(response) == (
        200,
        CHUNKED | {"x-one": "1"},
        b"5\r\nhello\r\n0\r\n\r\n",
    )


def test_date_and_server_of_the_application_stand_alone(shared: Shared) -> None:
    own = start(200, ("Date", "today"), ("Server", "mine"))
    request = head("Connection: close", start=f"GET {script(own, body())} HTTP/1.1")
    response = exchange(shared, request)
    assert re.findall(rb"(?im)^(?:date|server): (.*)\r$", response) == [
        b"today",
        b"mine",
    ]


INTERNAL_ERROR = (
    500,
    {
        "content-type": "text/plain; charset=utf-8",
        "content-length": "21",
        "connection": "close",
    },
    b"Internal Server Error",
)


@pytest.mark.parametrize("steps", [["raise"], ["exit"], [], [body("no start")]])
def test_application_that_fails_before_its_response(
    shared: Shared, steps: list[Any]
) -> None:
    for _ in range(2):
        response = exchange(shared, head(start=f"GET {script(*steps)} HTTP/1.1"))
        assert framing(response) == INTERNAL_ERROR


@pytest.mark.parametrize(
    "steps",
    [
        [start(), body("part", more=True), "raise"],
        [start(), body("part", more=True)],
        [start(), body("part", more=True), start()],
        [start(200, ("Content-Length", "9")), body("part")],
        [start(200, ("Content-Length", "4")), body("part", more=True), body("more")],
    ],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_response_that_fails_halfway_is_cut(
    shared: Shared, steps: list[Any], version: str
) -> None:
    with client(shared[2]["tcp4"]) as sock:
        sock.sendall(head(start=f"GET {script(*steps)} HTTP/{version}"))
        received = b""
        cut = False
        try:
            while chunk := sock.recv(1000):
                received += chunk
        except ConnectionResetError:
            cut = True
    assert b"more" not in received
    if version == "1.0" and b"ontent-" not in received:
        assert cut
    assert not received.endswith(b"0\r\n\r\n")


def test_application_that_goes_on_after_a_body_that_breaks_off(shared: Shared) -> None:
    """What it sends then goes nowhere; that is no error of its own."""
    server, engine, sockets = shared
    engine.forget()
    length = ("Content-Length", "9")
    steps = (
        "receive",
        start(200, length),
        body("first", more=True),
        "wait",
        body("last"),
    )
    request = head(
        "Transfer-Encoding: chunked", start=f"POST {script(*steps, 'say')} HTTP/1.1"
    )
    with client(sockets["tcp4"]) as sock:
        sock.sendall(request + b"5\r\nhello\r\n")
        if server == "daphne":  # which reads a body to its end first
            sock.sendall(b"zz\r\n")
            assert framing(rest(sock))[0] == 400
            return
        received = b""
        while not received.endswith(b"first"):
            received += sock.recv(1000)
        sock.sendall(b"zz\r\n")
        with suppress(ConnectionResetError):
            assert sock.recv(1000) == b""
        engine.release()
        engine.wait_for("^said")


def test_application_that_answers_a_body_that_breaks_off(shared: Shared) -> None:
    """The client has its answer; the application is told, and its own goes nowhere."""
    server, engine, sockets = shared
    engine.forget()
    steps = "receive", "receive", start(), body("late"), "say"
    request = head(
        "Transfer-Encoding: chunked", start=f"POST {script(*steps)} HTTP/1.1"
    )
    with client(sockets["tcp4"]) as sock:
        sock.sendall(request + b"5\r\nhello\r\n")
        if server != "daphne":  # which reads a body to its end first
            engine.wait_for("^received .*hello")
        sock.sendall(b"zz\r\n")
        if server != "daphne":
            engine.wait_for("^received .*http.disconnect")
            engine.wait_for("^said")
        response = rest(sock)
    assert framing(response)[0] == 400
    assert b"late" not in response


def test_application_that_reads_nothing_of_a_large_upload_can_end(
    shared: Shared,
) -> None:
    _, engine, sockets = shared
    engine.forget()
    steps = "wait", start(200, ("Content-Length", "2")), body("ok"), "say"
    request = head(
        f"Content-Length: {_UPLOAD}", start=f"POST {script(*steps)} HTTP/1.1"
    )
    with client(sockets["tcp4"]) as sock:
        sock.settimeout(0.5)
        left = memoryview(request + bytes(_UPLOAD))
        with suppress(TimeoutError):  # where it waits for the application
            while left:
                left = left[sock.send(left) :]
        engine.wait_for("^http /script")
        engine.release()
        engine.wait_for("^said")
        assert rest(sock).endswith(b"\r\n\r\nok")


_UPLOAD = 16_000_000
"""Bytes, more than there is room for on the way."""


@pytest.mark.parametrize("fields", [(), (("Content-Length", "5"),)])
def test_head_does_not_wait_for_the_body(
    shared: Shared, fields: tuple[tuple[str, str], ...]
) -> None:
    """An event stream that has nothing to say yet is open all the same."""
    steps = start(200, *fields), "receive", "receive"
    with client(shared[2]["tcp4"]) as sock:
        sock.sendall(head(start=f"GET {script(*steps)} HTTP/1.1"))
        received = b""
        while not received.endswith(b"\r\n\r\n"):
            received += sock.recv(1000)
        assert received.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("steps", [[start()], [start(), "raise"]])
def test_head_of_a_response_without_a_body_is_sent(
    shared: Shared, steps: list[Any]
) -> None:
    response = exchange(shared, head(start=f"GET {script(*steps)} HTTP/1.1"))
    assert response.startswith(b"HTTP/1.1 200 ")
    assert response.endswith(b"\r\n\r\n")


def test_invalid_header_of_the_application_is_an_error(shared: Shared) -> None:
    bad = start(200, ("X-Bad", "a\r\nSet-Cookie: stolen=1"))
    response = exchange(shared, head(start=f"GET {script(bad, body())} HTTP/1.1"))
    assert b"stolen" not in response
    assert b"HTTP/1.1 200" not in response


def test_pipelined_requests_are_answered_in_order(shared: Shared) -> None:
    one = [start(200, ("Content-Length", "1"))]
    requests = [head(start=f"GET {script(*one, body(c))} HTTP/1.1") for c in "abc"]
    last = head("Connection: close", start="GET / HTTP/1.1")
    response = exchange(shared, b"".join([*requests, last]))
    bodies = re.findall(rb"\r\n\r\n(\w+)", response)
    assert bodies == [b"aHTTP", b"bHTTP", b"cHTTP", b"hello"]


def test_requests_follow_one_another_however_they_come(shared: Shared) -> None:
    """Some are read at once, others by a parser that keeps what is not complete."""
    _, engine, sockets = shared
    plain = head(start="GET / HTTP/1.1")
    upload = head("Content-Length: 3", start="POST / HTTP/1.1") + b"abc"
    absolute = head(start="GET http://h/ HTTP/1.1")

    def answers(sock: socket.socket, number: int) -> bytes:
        received = b""
        while received.count(b"hello") < number:
            chunk = sock.recv(65_536)
            assert chunk, "the connection was closed"
            received += chunk
        assert received.count(b"HTTP/1.1 200 OK\r\n") == received.count(b"hel")
        return received

    with client(sockets["tcp4"]) as sock:
        for first, second in (
            (plain, b""),
            (upload, b""),
            (plain[:9], plain[9:]),
            (plain, b""),
            (upload[:30], upload[30:]),
            (plain, plain),
            (plain + upload[:9], upload[9:] + plain),
            (absolute, plain),
            (b"\r\n", plain),
            (plain + b"\r", b"\n" + plain),
            (plain, b""),
        ):
            sock.sendall(first)
            # Long enough for it to be read by itself.
            assert exchange_one(shared, head())[0] == 200
            sock.sendall(second)
            answers(sock, (first + second).count(b" HTTP/1.1\r\n"))
        sock.sendall(HEAD % b"/hold")
        engine.wait_for("^http /hold$")
        sock.sendall(plain)
        assert exchange_one(shared, head())[0] == 200
        engine.release()
        assert b"held" in answers(sock, 1)
        sock.sendall(plain)
        answers(sock, 1)
    engine.forget()


def test_head_that_comes_in_pieces_is_measured_whole(shared: Shared) -> None:
    _, engine, sockets = shared
    request = head(f"X: {'x' * 65_500}")
    with client(sockets["tcp4"]) as sock:
        sock.sendall(request[:60_000])
        # Long enough for it to be read by itself.
        assert exchange_one(shared, head())[0] == 200
        sock.sendall(request[60_000:])
        assert rest(sock).startswith(b"HTTP/1.1 431 ")
    engine.forget()


def test_many_pipelined_requests_are_no_large_head(shared: Shared) -> None:
    """Whose ends are not where the pieces end in which they come."""
    request = head(f"X: {'x' * 200}", start="GET / HTTP/1.1")
    data = request * 400 + head("Connection: close", start="GET / HTTP/1.1")
    with client(shared[2]["tcp4"]) as sock:
        for at in range(0, len(data), 7777):
            sock.sendall(data[at : at + 7777])
        response = rest(sock)
    assert response.count(b"HTTP/1.1 200 ") == 401


def test_nothing_is_answered_after_the_last_request(shared: Shared) -> None:
    last = head("Connection: close", start="GET / HTTP/1.1")
    for more in (b"NONSENSE\r\n\r\n", head()):
        response = exchange(shared, last + more)
        assert re.findall(rb"HTTP/1.1 (\d+)", response) == [b"200"]


def test_malformed_request_after_a_good_one_is_refused_in_its_turn(
    shared: Shared,
) -> None:
    _, engine, sockets = shared
    with client(sockets["tcp4"]) as sock:
        sock.sendall(HEAD % b"/hold" + b"NONSENSE\r\n\r\n")
        engine.wait_for("^http /hold$")
        engine.release()
        response = rest(sock)
    assert re.findall(rb"HTTP/1.1 (\d+)", response) == [b"200", b"400"]
    assert b"\r\n\r\nheldHTTP/1.1 400 " in response


def test_body_that_is_not_read_ends_the_connection(shared: Shared) -> None:
    server, _, sockets = shared
    with client(sockets["tcp4"]) as sock:
        sock.sendall(head("Content-Length: 200000", start="POST / HTTP/1.1"))
        if server == "daphne":  # the application is called when all is there
            sock.sendall(bytes(200_000))
            assert answer(sock)[2] == b"hello"
        else:
            status, fields, content = answer(sock)
            assert (status, content) == (200, b"hello")
            assert fields["connection"] == "close"
            assert rest(sock) == b""


def test_application_is_told_that_the_client_has_gone(shared: Shared) -> None:
    _, engine, sockets = shared
    with client(sockets["tcp4"]) as sock:
        target = script("receive", "receive")
        sock.sendall(head(start=f"GET {target} HTTP/1.1"))
        engine.wait_for("^received .*http.request")
    engine.wait_for('^received {"type": "http.disconnect"}')


def test_application_is_told_that_its_response_is_complete(shared: Shared) -> None:
    target = script("receive", start(200, ("Content-Length", "0")), body(), "receive")
    exchange_one(shared, head(start=f"GET {target} HTTP/1.1"))
    shared[1].wait_for('^received {"type": "http.disconnect"}')


def exchange_one(shared: Shared, request: bytes) -> tuple[int, dict[str, str], bytes]:
    with client(shared[2]["tcp4"]) as sock:
        sock.sendall(request)
        return answer(sock)


def test_expect_continue(shared: Shared) -> None:
    """When the application asks for the body, or before: that is up to the server."""
    with client(shared[2]["tcp4"]) as sock:
        sock.sendall(
            head(
                *("Content-Length: 4", "Expect: 100-continue"),
                start="POST /body HTTP/1.1",
            )
        )
        assert sock.recv(12) == b"HTTP/1.1 100"
        received = b""
        while not received.endswith(b"\r\n\r\n"):
            received += sock.recv(1)
        sock.sendall(b"four")
        assert answer(sock)[2] == b"4"


# What is refused


def post(*lines: str, content: bytes = b"", version: str = "1.1") -> bytes:
    return head(*lines, start=f"POST /body HTTP/{version}") + content


CHUNKS = "Transfer-Encoding: chunked"

MALFORMED = {
    "length and chunks": post("Content-Length: 4", CHUNKS, content=b"0\r\n\r\n"),
    "chunks and length": post(CHUNKS, "Content-Length: 4", content=b"0\r\n\r\n"),
    "bad length": post("Content-Length: four"),
    "signed length": post("Content-Length: +4", content=b"four"),
    "negative length": post("Content-Length: -1"),
    "two lengths": post("Content-Length: 4", "Content-Length: 5", content=b"four"),
    "the same length twice": post("Content-Length: 4", "Content-Length: 4", content=b"four"),
    "lengths in a list": post("Content-Length: 4, 4", content=b"four"),
    "length of many digits": post("Content-Length: " + "9" * 5000),
    "length of many zeros": post(f"Content-Length: {4:025}", content=b"four"),
    "empty length": post("Content-Length: "),
    "two codings": post(CHUNKS, CHUNKS, content=b"0\r\n\r\n"),
    "chunks in 1.0": post(CHUNKS, content=b"0\r\n\r\n", version="1.0"),
    "bad chunk size": post(CHUNKS, content=b"x\r\nfour\r\n0\r\n\r\n"),
    "prefixed chunk size": post(CHUNKS, content=b"0x4\r\nfour\r\n0\r\n\r\n"),
    "signed chunk size": post(CHUNKS, content=b"+4\r\nfour\r\n0\r\n\r\n"),
    "negative chunk size": post(CHUNKS, content=b"-4\r\nfour\r\n0\r\n\r\n"),
    "chunk size with a space": post(CHUNKS, content=b"4 \r\nfour\r\n0\r\n\r\n"),
    "chunk that is longer": post(CHUNKS, content=b"3\r\nfour\r\n0\r\n\r\n"),
    "chunk size with a bare LF": post(CHUNKS, content=b"4\nfour\r\n0\r\n\r\n"),
    "bare LF": head().replace(b"\r\n", b"\n"),
    "bare LF in a field": head("X: a\nY: b"),
    "bare CR in a field": head("X: a\rY: b"),
    "folded line": head("X: a\r\n b"),
    "folded first line": b"GET /scope HTTP/1.1\r\n Host: h\r\n\r\n",
    "no host": head(host=""),
    "two hosts": head("Host: other"),
    "two hosts in 1.0": head("Host: other", start="GET /scope HTTP/1.0"),
    "space before the colon": head("X : a"),
    "no colon": head("X"),
    "no name": head(": a"),
    "bad name": head("X(a): b"),
    "unknown method": head(start="FOOBAR /scope HTTP/1.1"),
    "method in lower case": head(start="get /scope HTTP/1.1"),
    "CONNECT": head(start="CONNECT h:443 HTTP/1.1"),
    "asterisk for GET": head(start="GET * HTTP/1.1"),
    "no path": head(start="GET ?q HTTP/1.1"),
    "path without a slash": head(start="GET scope HTTP/1.1"),
    "fragment": head(start="GET /scope#f HTTP/1.1"),
    "userinfo": head(start="GET http://u@h/scope HTTP/1.1"),
    "another scheme": head(start="GET ftp://h/scope HTTP/1.1"),
    "letters that are not ASCII": head(start="GET /scop\xc3\xa9 HTTP/1.1"),
    "space in the path": head(start="GET /sc ope HTTP/1.1"),
    "control character in the path": head(start="GET /sc\x01ope HTTP/1.1"),
    "no version": b"GET /scope\r\n\r\n",
    "version 0.9": head(start="GET /scope HTTP/0.9"),
    "version 1.2": head(start="GET /scope HTTP/1.2"),
    "version 2.0": head(start="GET /scope HTTP/2.0"),
    "version 11": head(start="GET /scope HTTP/11"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
    **{
        f"control character {code:02x}": head(f"X: a{chr(code)}b")
        for code in (0x00, 0x01, 0x08, 0x0B, 0x0C, 0x1C, 0x1F, 0x7F)
    },
}  # fmt: skip

NOT_IMPLEMENTED = {
    "gzip and chunks": post("Transfer-Encoding: gzip, chunked", content=b"0\r\n\r\n"),
    "identity": post("Transfer-Encoding: identity"),
    "unknown coding": post("Transfer-Encoding: xchunked"),
}

TOO_LARGE = {
    "head": head(f"X: {'x' * 65_536}"),
    "target": head(start=f"GET /{'x' * 65_536} HTTP/1.1"),
    "fields": head(*["X: x" for _ in range(501)]),
    "many long fields": head(*[f"X: {'x' * 1000}" for _ in range(66)]),
    "far too much": head(f"X: {'x' * 1_000_000}"),
}

REFUSED = [
    *[(400, "Bad Request", name, request) for name, request in MALFORMED.items()],
    *[(501, "Not Implemented", name, r) for name, r in NOT_IMPLEMENTED.items()],
    *[(431, "Request Header Fields Too Large", name, r) for name, r in TOO_LARGE.items()],
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "phrase", "request_"),
    [case[:2] + case[3:] for case in REFUSED],
    ids=[f"{case[0]} {case[2]}" for case in REFUSED],
)
def test_refused(shared: Shared, status: int, phrase: str, request_: bytes) -> None:
    _, engine, sockets = shared
    with client(sockets["tcp4"]) as sock:
        with suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(request_)
        response = rest(sock)
        # The end, not the reset of one who may not have read.
        assert sock.recv(1) == b""
    assert framing(response) == (
        status,
        {
            "content-type": "text/plain; charset=utf-8",
            "content-length": str(len(phrase)),
            "connection": "close",
        },
        phrase.encode(),
    )
    line = engine.wait_for("^log djasgi.access INFO .* HTTP/(?!1)| 400 ")[0]
    assert line


@pytest.mark.parametrize(
    "request_",
    [
        b"\r\n\r\n" + head(),
        head(f"X: {'x' * 60_000}"),
        head(*["X: x" for _ in range(400)]),
        post(CHUNKS, content=b"4;ext=1\r\nfour\r\n0\r\n\r\n"),
        post("transfer-encoding: CHUNKED", content=b"4\r\nfour\r\n0\r\n\r\n"),
        post("Content-Length: 0004", content=b"four"),
        head("X:"),
        head("X: a\tb"),
        *[head(start=f"{method} /scope HTTP/1.1") for method in ("PURGE", "QUERY")],
    ],
    ids=range(10),
)
def test_accepted(shared: Shared, request_: bytes) -> None:
    assert exchange_one(shared, request_)[0] == 200
