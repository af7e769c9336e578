"""What `make test-projects` takes for the same page, and what it does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.real.crawl import Both, form_of
from tests.real.normal import Answer, normal

FORM = '<form><input name="csrfmiddlewaretoken" value="%s"><input name="a" value="1">'
FOLDERS = (Path("/nowhere"), Path("/nowhere"))


def answer(body: str, *, etag: str = "0" * 32, date: str = "Mon") -> Answer:
    head = (
        f"HTTP/1.1 200 OK\r\ndate: {date}\r\n"
        f'etag: "{etag}"\r\ncontent-length: {len(body)}\r\n'
    )
    return Answer(200, head.encode(), body.encode())


def same(one: Answer, other: Answer) -> bool:
    return normal(one, {}, []) == normal(other, {}, [])


def test_dates_and_tokens_may_differ():
    one, other = answer(FORM % ("a" * 64), date="Mon"), answer(FORM % ("b" * 64))
    assert one != other
    assert same(one, other)


@pytest.mark.parametrize(
    "other",
    [FORM % ("a" * 63), FORM % ("a" * 64) + " ", (FORM % ("a" * 64)).replace("1", "2")],
)
def test_nothing_beside_a_token_may(other: str):
    assert not same(answer(FORM % ("a" * 64)), answer(other))


def test_the_etag_of_a_page_with_a_token_is_one_and_no_other():
    page = FORM % ("a" * 64)
    assert same(answer(page), answer(page, etag="1" * 32))
    assert not same(answer("page"), answer("page", etag="1" * 32))


def test_messages_are_compared_though_their_signature_is_not():
    def message(payload: str, signed: str) -> Answer:
        cookie = f"set-cookie: messages={payload}:{signed}; Path=/\r\n"
        return Answer(302, cookie.encode(), b"")

    one = message("abc", "1xWIYi:" + "s" * 43)
    assert same(one, message("abc", "1xWIYj:" + "t" * 43))
    assert not same(one, message("abd", "1xWIYi:" + "s" * 43))


@contextmanager
def serving(
    body: bytes, *, status: int = 200, header: str = "a", chunked: bool = False
) -> Iterator[int]:
    """A server that answers everything so; its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("X-Header", header)
            if chunked:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
            self.wfile.write(framed if chunked else body)
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@contextmanager
def both(one: dict[str, Any], other: dict[str, Any]) -> Iterator[Both]:
    with ExitStack() as stack:
        ports = [stack.enter_context(serving(**each)) for each in (one, other)]
        yield Both(FOLDERS, (ports[0], ports[1]), [])


@pytest.mark.parametrize("chunked", [False, True])
def test_equal_answers_are_no_difference(chunked: bool):
    page = {"body": b"page", "chunked": chunked}
    with both(page, page) as pair:
        assert pair.get("/").body == b"page"
        assert (pair.pages, pair.differences) == (1, [])


@pytest.mark.parametrize(
    "other",
    [
        {"body": b"pagE"},
        {"body": b"page", "header": "b"},
        {"body": b"page", "status": 203},
        {"body": b"page", "chunked": True},
    ],
)
def test_a_body_a_header_a_status_or_the_framing_is_one(other: dict[str, Any]):
    with both({"body": b"page"}, other) as pair:
        pair.get("/")
        assert len(pair.differences) == 1


def test_two_servers_that_fail_alike_are_one():
    page = {"body": b"oops", "status": 500}
    with both(page, page) as pair:
        pair.get("/")
        pair.spider("/", most=5, without="^$")
        assert ["500 instead of 200" in pair.differences[0], len(pair.differences)] == [
            True,
            2,
        ]


def test_a_form_is_filled_in_as_a_browser_does():
    page = answer(
        "<form><input name=x></form>"
        f"<form>{FORM % 'token'}<textarea name=t>\nTwo\nlines</textarea>"
        "<select name=s><option value=1><option value=2 selected></select>"
        "<input type=checkbox name=c checked><input type=checkbox name=d>"
        "<input type=submit name=e value=1></form>"
    )
    assert form_of(page, ["s"]) == [
        ("csrfmiddlewaretoken", "token"),
        ("a", "1"),
        ("t", "Two\nlines"),
        ("s", "2"),
        ("c", "on"),
    ]
