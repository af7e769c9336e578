"""Client and scheme behind proxies."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import pytest
from hypothesis import given, strategies as st

from djasgi.layers.asgi import Scope
from djasgi.layers.peers import TrustedPeers, parse_address
from djasgi.layers.proxy import ProxyHeaders

LOOPBACK = ("127.0.0.1", "::1")


def forwarded(
    *headers: tuple[str, str | bytes],
    trusted: tuple[str, ...] = LOOPBACK,
    peer: Any = ("127.0.0.1", 5000),
    **more: Any,
) -> Scope:
    """The scope that the application gets."""
    scope = {
        "type": "http",
        "client": peer,
        "server": ("127.0.0.1", 8000),
        "scheme": "http",
        "headers": [
            (name.encode(), value if isinstance(value, bytes) else value.encode())
            for name, value in headers
        ],
        **more,
    }
    before = dict(scope)
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        seen.append(scope)

    asyncio.run(ProxyHeaders(app, trusted)(scope, None, None))  # type: ignore[arg-type]
    assert scope == before, "the caller's scope is never changed"
    return seen[0]


def client(chain: str, *trusted: str, peer: Any = ("127.0.0.1", 5000)) -> Any:
    return forwarded(
        ("x-forwarded-for", chain), trusted=trusted or LOOPBACK, peer=peer
    )["client"]


@pytest.mark.parametrize(
    ("chain", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ('"[2001:db8::1]:443"', "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
        ("6.6.6.6,\t192.0.2.1 , ,", "192.0.2.1"),
        ("192.0.2.1, 127.0.0.1, ::1", "192.0.2.1"),
        # Only trusted ones: the one furthest away.
        ("127.0.0.1, ::1", "127.0.0.1"),
        # What is no address ends the walk at what was good before it.
        ("192.0.2.1, unknown, ::1", "::1"),
        ("evil%00, 192.0.2.1", "192.0.2.1"),
    ],
)
def test_client_is_the_rightmost_untrusted_address(chain: str, address: str) -> None:
    assert client(chain) == (address, 0)


@pytest.mark.parametrize(
    "chain",
    [
        "",
        " , ",
        "unknown",
        "192.0.2.1, unknown",
        "fe80::1%\x1b[31m",
        "192.0.2.256",
        "192.0.2.1:x",
        "192.0.2.1:123456",
        "[2001:db8::1",
        "[192.0.2.1]x",
        "\xff\xfe",
    ],
)
def test_a_chain_that_ends_in_no_address_leaves_the_peer(chain: str) -> None:
    assert client(chain) == ("127.0.0.1", 5000)


def test_all_lines_of_the_header_make_one_chain() -> None:
    scope = forwarded(
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-for", "192.0.2.7, 10.0.0.1"),
        ("x-forwarded-for", "10.0.0.2"),
        trusted=("127.0.0.1", "10.0.0.0/8"),
    )

    assert scope["client"] == ("192.0.2.7", 0)


@pytest.mark.parametrize(
    ("peer", "trusted", "believed"),
    [
        ("127.0.0.1", ("127.0.0.1",), True),
        ("127.0.0.2", ("127.0.0.1",), False),
        ("10.1.2.3", ("10.0.0.0/8",), True),
        ("::ffff:10.1.2.3", ("10.0.0.0/8",), True),
        ("::ffff:11.1.2.3", ("10.0.0.0/8",), False),
        ("10.1.2.3", ("::ffff:10.0.0.0/104",), True),
        ("2001:db8::5", ("2001:db8::/32",), True),
        ("2001:DB8:0::5", ("2001:db8::5",), True),
        ("fe80::1%eth0", ("fe80::1",), True),
        ("192.0.2.9", ("*",), True),
        ("192.0.2.9", (), False),
        ("testclient", ("127.0.0.1",), False),
    ],
)
def test_only_trusted_peers_are_believed(
    peer: str, trusted: tuple[str, ...], believed: bool
) -> None:
    scope = forwarded(
        ("x-forwarded-for", "203.0.113.1"),
        ("x-forwarded-proto", "https"),
        trusted=trusted,
        peer=(peer, 1),
    )

    assert (scope["client"] == ("203.0.113.1", 0)) is believed
    assert (scope["scheme"] == "https") is believed


@pytest.mark.parametrize("server", [None, ("/run/site.sock", None)])
def test_unix_peers_are_always_trusted(server: Any) -> None:
    scope = forwarded(
        ("x-forwarded-for", "203.0.113.1"), trusted=(), peer=None, server=server
    )

    assert scope["client"] == ("203.0.113.1", 0)


def test_a_tcp_peer_whose_address_is_gone_is_not_a_unix_peer() -> None:
    """uvicorn gives no client when the peer has reset the connection already."""
    scope = forwarded(("x-forwarded-for", "203.0.113.1"), peer=None)

    assert scope["client"] is None


def test_star_takes_only_the_entry_that_the_peer_added() -> None:
    assert client("6.6.6.6, 192.0.2.1", "*", peer=("8.8.8.8", 1)) == ("192.0.2.1", 0)


def test_star_with_networks_walks_on_through_the_networks() -> None:
    found = client("6.6.6.6, 192.0.2.1, 10.0.0.1", "*", "10.0.0.0/8")

    assert found == ("192.0.2.1", 0)


@pytest.mark.parametrize(
    ("kind", "value", "scheme"),
    [
        ("http", "https", "https"),
        ("http", "HTTPS", "https"),
        ("http", "https, http", "http"),
        ("http", "http,https", "https"),
        ("http", "wss", "kept"),
        ("http", "javascript", "kept"),
        ("http", "https,", "kept"),
        ("http", "", "kept"),
        ("websocket", "https", "wss"),
        ("websocket", "http", "ws"),
        ("websocket", "wss", "wss"),
        ("websocket", "gopher", "kept"),
    ],
)
def test_scheme_is_the_last_known_value(kind: str, value: str, scheme: str) -> None:
    scope = forwarded(("x-forwarded-proto", value), type=kind, scheme="kept")

    assert scope["scheme"] == scheme


def test_the_last_line_of_the_scheme_counts() -> None:
    lines = [("x-forwarded-proto", "http"), ("x-forwarded-proto", "https")]

    assert forwarded(*lines)["scheme"] == "https"


def test_other_forwarded_headers_change_nothing() -> None:
    scope = forwarded(
        ("x-forwarded-host", "evil.test"),
        ("x-forwarded-port", "444"),
        ("x-real-ip", "203.0.113.1"),
        ("forwarded", "for=203.0.113.1"),
        ("x_forwarded_for", "203.0.113.1"),
    )

    assert scope["client"] == ("127.0.0.1", 5000)
    assert scope["scheme"] == "http"


@pytest.mark.parametrize(
    ("peer", "headers"),
    [
        (("192.0.2.1", 1), [(b"x-forwarded-for", b"203.0.113.1")]),
        (("127.0.0.1", 1), [(b"host", b"a.test")]),
    ],
)
def test_the_scope_is_not_copied_for_nothing(peer: Any, headers: Any) -> None:
    scope: Scope = {"type": "http", "client": peer, "headers": headers}

    async def app(given: Scope, receive: Any, send: Any) -> None:
        assert given is scope

    asyncio.run(ProxyHeaders(app, LOOPBACK)(scope, None, None))  # type: ignore[arg-type]


def test_a_lifespan_scope_passes() -> None:
    scope: Scope = {"type": "lifespan"}
    seen = []

    async def app(given: Scope, receive: Any, send: Any) -> None:
        seen.append(given)

    asyncio.run(ProxyHeaders(app, LOOPBACK)(scope, None, None))  # type: ignore[arg-type]

    assert seen[0] is scope


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("::1", "::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("fe80::1%eth0", "None"),
        ("localhost", "None"),
        ("", "None"),
    ],
)
def test_parse_address(text: str, address: str) -> None:
    assert str(parse_address(text)) == address


def test_an_entry_that_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match=r"proxy\.test"):
        TrustedPeers(["proxy.test"])


plausible = st.sampled_from(
    ["127.0.0.1", "10.0.0.1", "[::1]:80", "192.0.2.1:80", "::ffff:1.2.3.4", "fe80::1%a"]
).map(str.encode)
junk = st.text('0123456789abcdef.:[]%," ').map(str.encode) | st.binary(max_size=30)
lines = st.lists(st.lists(plausible | junk).map(b",".join), max_size=3)


@given(lines=lines, proto=st.binary(max_size=20), kind=st.sampled_from(["*", "::/0"]))
def test_whatever_comes_the_client_is_an_address_or_the_peer(
    lines: list[bytes], proto: bytes, kind: str
) -> None:
    peer = ("127.0.0.1", 5000)
    headers = [("x-forwarded-for", line) for line in lines]
    scope = forwarded(
        *headers, ("x-forwarded-proto", proto), trusted=(kind, "127.0.0.0/8")
    )

    assert scope["scheme"] in ("http", "https")
    if scope["client"] != peer:
        host, port = scope["client"]
        assert str(ipaddress.ip_address(host)) == host
        assert "%" not in host
        assert port == 0
