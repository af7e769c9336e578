"""Who has an address already: for errors only."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
LISTENING = "0A"
"""TCP_LISTEN in the `st` column of /proc/net/tcp, proc_pid_net(5)."""


def listener(hosts: Iterable[str], port: int) -> str:
    """Who listens on `port` of one of `hosts`, as " by name (pid 1)"; "" if unknown."""
    wanted = [ipaddress.ip_address(host.partition("%")[0]) for host in hosts]
    inodes = {
        inode
        for table in ("tcp", "tcp6")
        for address, found, inode in _listening(PROC / "net" / table)
        if found == port and any(_overlap(address, other) for other in wanted)
    }
    return _holder(inodes)


def _listening(table: Path) -> Iterator[tuple[Address, int, str]]:
    """The listening sockets in /proc/net/tcp or tcp6: address, port and inode."""
    for line in _lines(table)[1:]:
        fields = line.split()
        if fields[3] == LISTENING:
            host, _, port = fields[1].partition(":")
            yield _address(host), int(port, 16), fields[9]


Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _address(text: str) -> Address:
    """An address as the kernel prints it: words of four bytes in the host's order."""
    words = [int(text[i : i + 8], 16) for i in range(0, len(text), 8)]
    return ipaddress.ip_address(b"".join(struct.pack("=I", word) for word in words))


def _overlap(one: Address, other: Address) -> bool:
    return one == other or one.is_unspecified or other.is_unspecified


def _holder(inodes: set[str]) -> str:
    """The process that has one of the sockets open; of several, the eldest."""
    links = {f"socket:[{inode}]" for inode in inodes}
    for pid in sorted(int(p.name) for p in _entries(PROC) if p.name.isdigit()):
        for descriptor in _entries(PROC / str(pid) / "fd"):
            with suppress(OSError):
                if str(descriptor.readlink()) in links:
                    return _named(pid)
    return ""


def peer(probe: socket.socket) -> str:
    """Who listens on the unix socket that `probe` is connected to: unix(7)."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return ""
    data = probe.getsockopt(socket.SOL_SOCKET, option, struct.calcsize("3i"))
    pid = struct.unpack("3i", data)[0]
    return _named(pid) if pid else ""


def _named(pid: int) -> str:
    name = "".join(_lines(PROC / str(pid) / "comm")[:1])
    shown = "".join(c if c.isprintable() else "?" for c in name)
    return f" by {shown} (pid {pid})" if shown else f" by pid {pid}"


def _entries(directory: Path) -> list[Path]:
    with suppress(OSError):
        return [*directory.iterdir()]
    return []


def _lines(path: Path) -> list[str]:
    with suppress(OSError):
        return path.read_text(errors="replace").splitlines()
    return []
