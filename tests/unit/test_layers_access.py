"""The records of the access log."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, strategies as st

from djasgi.layers.access import AccessLog
from djasgi.layers.asgi import App, Message, Scope
from djasgi.layers.proxy import ProxyHeaders

START = {"type": "http.response.start", "status": 200, "headers": []}
DISCONNECT = {"type": "http.disconnect"}


class Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        record.getMessage()
        self.records.append(record)


@pytest.fixture(autouse=True)
def records() -> Iterator[list[Any]]:
    with recording() as handler:
        yield handler.records


class recording:  # noqa: N801 - used like a function
    """Catches the records of the access log; usable within one hypothesis example."""

    def __enter__(self) -> Records:
        self.logger = logging.getLogger("djasgi.access")
        self.before = (
            self.logger.handlers[:],
            self.logger.level,
            self.logger.propagate,
            self.logger.disabled,
        )
        handler = Records()
        self.logger.handlers[:] = [handler]
        self.logger.setLevel(logging.INFO)
        self.logger.propagate = False
        self.logger.disabled = False
        return handler

    def __exit__(self, *exc: object) -> None:
        self.logger.handlers[:], level, propagate, disabled = self.before
        self.logger.setLevel(level)
        self.logger.propagate = propagate
        self.logger.disabled = disabled


def http(**more: Any) -> Scope:
    return {
        "type": "http",
        "client": ("192.0.2.1", 40000),
        "server": ("127.0.0.1", 8000),
        "method": "GET",
        "path": "/a",
        "raw_path": b"/a",
        "query_string": b"token=secret",
        "scheme": "https",
        "http_version": "1.1",
        "headers": [],
        **more,
    }


def websocket(**more: Any) -> Scope:
    return http(type="websocket", scheme="wss", **more)


def respond(*parts: bytes, status: int = 200) -> App:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({**START, "status": status})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    return app


def run(
    app: App, scope: Scope, *incoming: Message, trusted: Any = None
) -> list[Message]:
    sent: list[Message] = []
    messages = iter(incoming)

    async def receive() -> Message:
        return next(messages)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(AccessLog(app, trusted)(scope, receive, send))
    return sent


def test_a_response_is_one_record_with_these_attributes(records: list[Any]) -> None:
    run(respond(b"hello ", b"world", status=404), http())

    (record,) = records
    assert record.levelname == "INFO"
    assert record.client == "192.0.2.1"
    assert record.method == "GET"
    assert record.path == "/a"
    assert record.status == 404
    assert record.bytes == 11
    assert record.duration >= 0
    assert record.http_version == "1.1"
    assert record.scheme == "https"
    assert record.event == "response"
    assert re.fullmatch(r"[0-9a-f]{32}", record.request_id)
    assert re.fullmatch(
        r"192\.0\.2\.1 GET /a HTTP/1\.1 404 11 [0-9.]+ms [0-9a-f]{32}",
        record.getMessage(),
    )
    assert "secret" not in str(record.__dict__)


def test_the_messages_pass_unaltered_and_at_once() -> None:
    """Nothing is held back: each message has passed before the next is sent."""
    sent: list[Message] = []
    body = {"type": "http.response.body", "body": b"x", "more_body": True}

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        assert await receive() is DISCONNECT
        for number, message in enumerate((START, body), start=1):
            await send(message)
            assert len(sent) == number

    async def receive() -> Message:
        return DISCONNECT

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(AccessLog(app)(http(), receive, send))

    assert sent[0] is START
    assert sent[1] is body


def test_the_record_comes_with_the_last_byte(records: list[Any]) -> None:
    """What the application does afterwards is no part of the response."""

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await respond(b"x")(scope, receive, send)
        assert len(records) == 1
        raise LookupError

    with pytest.raises(LookupError):
        run(app, http())
    assert [record.status for record in records] == [200]


def test_the_body_of_a_head_request_is_not_counted(records: list[Any]) -> None:
    run(respond(b"hello"), http(method="HEAD"))

    assert records[0].bytes == 0


def test_an_application_that_raises_is_a_500(records: list[Any]) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        run(app, http())
    assert [record.status for record in records] == [500]


def test_an_application_that_answers_nothing_is_a_500(records: list[Any]) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        pass

    run(app, http())

    assert [record.status for record in records] == [500]


def test_raising_after_the_start_keeps_the_status_sent(records: list[Any]) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        raise LookupError

    with pytest.raises(LookupError):
        run(app, http())
    assert [(record.status, record.bytes) for record in records] == [(200, 3)]


def test_a_start_that_the_server_refuses_is_a_500(records: list[Any]) -> None:
    async def send(message: Message) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(AccessLog(respond())(http(), None, send))  # type: ignore[arg-type]
    assert [record.status for record in records] == [500]


def test_a_client_gone_before_the_response_is_a_499(records: list[Any]) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()

    run(app, http(), DISCONNECT)

    assert [record.status for record in records] == [499]


def test_a_cancelled_request_is_a_499_and_stays_cancelled(records: list[Any]) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run(app, http())
    assert [record.status for record in records] == [499]


def test_a_client_gone_within_the_response_keeps_the_status(records: list[Any]) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send(START)
        await receive()

    run(app, http(), DISCONNECT)

    assert [record.status for record in records] == [200]


def test_a_unix_peer_has_no_client(records: list[Any]) -> None:
    run(respond(), http(client=None, server=None))

    assert records[0].client is None
    assert records[0].getMessage().startswith("- GET ")


@pytest.mark.parametrize(
    ("scope", "path"),
    [
        ({"raw_path": b"/gr%C3%B6%C3%9Fe%0a"}, "/gr%C3%B6%C3%9Fe%0a"),
        ({"raw_path": b"/a?token=secret"}, "/a"),
        ({"raw_path": b"/a \n\x1b\xff\"'"}, "/a%20%0A%1B%FF\"'"),
        (
            {"raw_path": None, "path": "/größe\n \u2028/a:b"},
            "/gr%C3%B6%C3%9Fe%0A%20%E2%80%A8/a:b",
        ),
        ({"raw_path": None, "path": "/a?b\ud800"}, "/a%3Fb%5Cud800"),
    ],
)
def test_the_path_is_printable_and_without_its_query(
    records: list[Any], scope: dict[str, Any], path: str
) -> None:
    run(respond(), http(**scope))

    assert records[0].path == path


def test_a_method_that_is_no_token_is_not_logged(records: list[Any]) -> None:
    run(respond(), http(method="GET\x1b[31m /x 200"))

    assert records[0].method == "-"


@given(
    raw=st.none() | st.binary(),
    path=st.text(st.characters()),
    method=st.text(),
    request_id=st.binary(),
)
def test_peers_cannot_put_space_or_control_characters_into_a_record(
    raw: bytes | None, path: str, method: str, request_id: bytes
) -> None:
    headers = [(b"x-request-id", request_id)]
    with recording() as handler:
        run(
            respond(),
            http(raw_path=raw, path=path, method=method, headers=headers),
            trusted=["*"],
        )

    (record,) = handler.records
    for text in (record.path, record.method, record.request_id):
        assert re.fullmatch(r"[\x21-\x7e]*", text)
    assert len(record.getMessage().split(" ")) == 8


@pytest.mark.parametrize(
    ("peer", "trusted", "value", "taken"),
    [
        ("127.0.0.1", ["127.0.0.1"], b"Abc-1.2_3", True),
        ("127.0.0.1", ["127.0.0.1"], b"a" * 128, True),
        ("127.0.0.1", ["127.0.0.1"], b"a" * 129, False),
        ("127.0.0.1", ["127.0.0.1"], b"", False),
        ("127.0.0.1", ["127.0.0.1"], b"a b", False),
        ("127.0.0.1", ["127.0.0.1"], b"a\n", False),
        ("192.0.2.1", ["127.0.0.1"], b"abc", False),
        ("127.0.0.1", None, b"abc", False),
    ],
)
def test_a_plain_request_id_of_a_trusted_peer_is_taken(
    records: list[Any], peer: str, trusted: Any, value: bytes, taken: bool
) -> None:
    scope = http(client=(peer, 1), headers=[(b"x-request-id", value)])

    run(respond(), scope, trusted=trusted)

    assert (records[0].request_id == value.decode()) is taken
    assert records[0].request_id


@pytest.mark.parametrize(("peer", "taken"), [("127.0.0.1", True), ("192.0.2.9", False)])
def test_trust_is_about_who_connected_not_about_the_client_behind(
    records: list[Any], peer: str, taken: bool
) -> None:
    headers = [
        (b"x-forwarded-for", b"127.0.0.1, 203.0.113.7"),
        (b"x-request-id", b"abc"),
    ]
    app = ProxyHeaders(AccessLog(respond(), ["127.0.0.1"]), ["127.0.0.1"])

    async def send(message: Message) -> None:
        pass

    asyncio.run(app(http(client=(peer, 1), headers=headers), None, send))  # type: ignore[arg-type]

    assert (records[0].request_id == "abc") is taken
    assert records[0].client == ("203.0.113.7" if taken else peer)


def test_made_request_ids_differ(records: list[Any]) -> None:
    for _ in range(50):
        run(respond(), http())

    assert len({record.request_id for record in records}) == 50


def test_a_logger_that_is_off_costs_no_wrapping(records: list[Any]) -> None:
    logging.getLogger("djasgi.access").setLevel(logging.WARNING)

    async def send(message: Message) -> None:
        pass

    async def app(scope: Scope, receive: Any, given: Any) -> None:
        assert given is send
        await given(START)

    asyncio.run(AccessLog(app)(http(), None, send))  # type: ignore[arg-type]

    assert records == []


def test_a_lifespan_scope_is_not_logged(records: list[Any]) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.startup.complete"})

    assert run(app, {"type": "lifespan"})
    assert records == []


def talk(*messages: Message) -> App:
    """Send the messages; None among them stands for waiting for the client."""

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        for message in messages:
            await (send(message) if message else receive())

    return app


ACCEPT = {"type": "websocket.accept"}
WAIT: Message = {}


def outcome(records: list[Any]) -> list[tuple[str, int]]:
    return [(record.event, record.status) for record in records]


def test_a_websocket_is_logged_when_it_opens_and_closes(records: list[Any]) -> None:
    text = {"type": "websocket.send", "text": "é"}
    data = {"type": "websocket.send", "bytes": b"abc", "text": None}
    app = talk(ACCEPT, text, data, WAIT)

    run(app, websocket(), {"type": "websocket.disconnect", "code": 4001})

    opened, closed = records
    assert outcome(records) == [("open", 101), ("close", 4001)]
    assert (opened.method, opened.path, opened.scheme) == ("WS", "/a", "wss")
    assert opened.request_id == closed.request_id
    assert closed.bytes == 5
    assert closed.getMessage().startswith("192.0.2.1 WS /a HTTP/1.1 closed 4001 5 ")


@pytest.mark.parametrize(
    ("app", "incoming", "status"),
    [
        (talk(ACCEPT, {"type": "websocket.close"}), [], 1000),
        (talk(ACCEPT, {"type": "websocket.close", "code": 4002}), [], 4002),
        (talk(ACCEPT, WAIT), [{"type": "websocket.disconnect"}], 1005),
        (talk(ACCEPT), [], 1011),
    ],
)
def test_close_code_of_an_accepted_websocket(
    records: list[Any], app: App, incoming: list[Message], status: int
) -> None:
    run(app, websocket(), *incoming)

    assert outcome(records) == [("open", 101), ("close", status)]


@pytest.mark.parametrize(
    ("app", "incoming", "status"),
    [
        (talk({"type": "websocket.close"}), [], 403),
        (talk(WAIT), [{"type": "websocket.disconnect", "code": 1006}], 499),
        (talk(), [], 500),
        (
            talk(
                {"type": "websocket.http.response.start", "status": 401},
                {"type": "websocket.http.response.body", "body": b"no"},
            ),
            [],
            401,
        ),
    ],
)
def test_a_websocket_that_is_not_accepted_has_an_http_status(
    records: list[Any], app: App, incoming: list[Message], status: int
) -> None:
    run(app, websocket(), *incoming)

    assert outcome(records) == [("close", status)]


@pytest.mark.parametrize(
    ("before", "error", "status"),
    [
        ([ACCEPT], LookupError, 1011),
        ([], LookupError, 500),
        ([ACCEPT], asyncio.CancelledError, 1006),
        ([], asyncio.CancelledError, 499),
    ],
)
def test_a_websocket_whose_application_raises(
    records: list[Any],
    before: list[Message],
    error: type[BaseException],
    status: int,
) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await talk(*before)(scope, receive, send)
        raise error

    with pytest.raises(error):
        run(app, websocket())
    assert outcome(records)[-1] == ("close", status)
