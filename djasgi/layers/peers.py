"""Which peers are believed when they say something about somebody else."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

from djasgi.layers.asgi import Scope

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Where `ProxyHeaders` keeps the peer that connected when it puts another address in
# its place: what is believed depends on who connected, not on who it spoke for.
PEER = "djasgi.peer"


def parse_address(text: str) -> Address | None:
    """The IP address that `text` is, or None.

    An IPv4-mapped IPv6 address, as dual-stack sockets report it (RFC 4291, section
    2.5.5.2), is the IPv4 address. A zone (`fe80::1%eth0`) means something on one host
    only and may hold any text: such an address counts as none.
    """
    if "%" in text:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class TrustedPeers:
    """Addresses and networks that are trusted.

    `*` stands for whoever connects. It is about the peer only: an address that a peer
    reports is trusted when it is named. Peers on a unix socket are always trusted.
    Raises ValueError for an entry that is neither an address nor a network.
    """

    def __init__(self, trusted: Sequence[str]) -> None:
        self.anyone = "*" in trusted
        self.networks = [_network(entry) for entry in trusted if entry != "*"]
        # Bounded: the addresses come from the outside.
        self._named = lru_cache(maxsize=1024)(self._is_named)

    def names(self, address: Address) -> bool:
        """Whether `address` is one of the addresses or in one of the networks."""
        return any(address in network for network in self.networks)

    def trusts_peer(self, scope: Scope) -> bool:
        """Whether the peer of this connection is trusted.

        Not every missing client is a unix socket: a TCP peer that resets the
        connection right after its request has no address any more, and must not be
        believed for it. The server's end tells the two apart: it has a port.
        """
        peer = scope[PEER] if PEER in scope else scope.get("client")
        if peer is None:
            server = scope.get("server")
            return server is None or server[1] is None
        return self.anyone or self._named(peer[0])

    def _is_named(self, host: str) -> bool:
        address = parse_address(host.partition("%")[0])
        return address is not None and self.names(address)


_MAPPED_BITS = 96  # of ::ffff:0:0/96 (RFC 4291, section 2.5.5.2)


def _network(entry: str) -> Network:
    network = ipaddress.ip_network(entry)
    if isinstance(network, ipaddress.IPv6Network):
        mapped = network.network_address.ipv4_mapped
        if mapped is not None and network.prefixlen >= _MAPPED_BITS:
            return ipaddress.ip_network((mapped, network.prefixlen - _MAPPED_BITS))
    return network
