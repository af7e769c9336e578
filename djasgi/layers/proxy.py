"""Client address and scheme from the headers of trusted proxies."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Sequence
from typing import Any

from djasgi.layers.asgi import App, Receive, Scope, Send
from djasgi.layers.peers import PEER, Address, TrustedPeers, parse_address

# An entry of X-Forwarded-For: an address, with a port (as some load balancers send)
# or without. The alternatives keep 2001:db8::1 apart from 192.0.2.1:80.
_ENTRY = re.compile(
    r"\[([0-9A-Fa-f:.]+)\](?::\d{1,5})?|([0-9.]+):\d{1,5}|([0-9A-Fa-f:.]+)"
)

_FORWARDED = frozenset((b"x-forwarded-for", b"x-forwarded-proto"))

_SCHEMES = {
    "http": {b"http": "http", b"https": "https"},
    "websocket": {b"http": "ws", b"https": "wss", b"ws": "ws", b"wss": "wss"},
}


class ProxyHeaders:
    """Sets `client` and `scheme` from X-Forwarded-For and -Proto of trusted peers.

    The client is the rightmost address of the whole chain that is not itself trusted,
    since everything to its left is only what that client claims. Its port is 0: the
    headers do not tell it. With `*` in `trusted`, whoever connects is believed for
    the one entry that it added itself, the last, unless networks named beside the `*`
    cover that entry: so a client cannot invent its address through one proxy. Behind
    several proxies, name them.

    The scheme is the last value of X-Forwarded-Proto, the one that the trusted peer
    added. What is neither an address nor a known scheme is ignored. Nothing is
    changed in the scope that came in: what changes is a copy.
    """

    def __init__(self, app: App, trusted: Sequence[str]) -> None:
        self.app = app
        self.peers = TrustedPeers(trusted)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        # What most requests do not have is looked for before who has sent it.
        if scope["type"] in _SCHEMES:
            for name, _ in scope["headers"]:
                if name in _FORWARDED:
                    if self.peers.trusts_peer(scope):
                        scope = self._forwarded(scope)
                    break
        return self.app(scope, receive, send)

    def _forwarded(self, scope: Scope) -> Scope:
        chain: list[bytes] = []
        proto = b""
        for name, value in scope["headers"]:
            if name == b"x-forwarded-for":
                chain.append(value)
            elif name == b"x-forwarded-proto":
                proto = value
        changes: dict[str, Any] = {}
        if proto:
            last = proto.rpartition(b",")[2].strip(b' \t"').lower()
            scheme = _SCHEMES[scope["type"]].get(last)
            if scheme is not None:
                changes["scheme"] = scheme
        if chain:
            client = self._client(b",".join(chain).decode("latin-1"))
            if client is not None:
                changes["client"] = (str(client), 0)
                changes[PEER] = scope.get("client")
        return {**scope, **changes} if changes else scope

    def _client(self, chain: str) -> Address | None:
        """The rightmost untrusted address; None when the peer is as far as it goes."""
        client = None
        for entry in reversed(chain.split(",")):
            text = entry.strip(' \t"')
            if not text:
                continue  # empty elements of a list do not count (RFC 9110, 5.6.1.2)
            address = _parse_entry(text)
            if address is None:
                break
            client = address
            if not self.peers.names(address):
                break
        return client


def _parse_entry(text: str) -> Address | None:
    entry = _ENTRY.fullmatch(text)
    return parse_address(entry[1] or entry[2] or entry[3]) if entry else None
