"""Clients of an engine, as plain as they come."""

from __future__ import annotations

import socket
import ssl
import time
from contextlib import suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import trustme
from websockets.sync.client import ClientConnection, connect as ws_connect

PATIENCE = 20.0

HEAD = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"

UPGRADE = (
    b"GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def listener(family: str = "tcp4", path: Path | None = None) -> socket.socket:
    match family:
        case "tcp4":
            return socket.create_server(("127.0.0.1", 0))
        case "tcp6":
            return socket.create_server(("::1", 0), family=socket.AF_INET6)
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    return sock


def client(of: socket.socket) -> socket.socket:
    """A connection to a listening socket."""
    sock = socket.socket(of.family)
    sock.settimeout(PATIENCE)
    sock.connect(of.getsockname())
    return sock


def answer(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one response: status, header fields, body."""
    response = HTTPResponse(sock)
    response.begin()
    fields = {name.lower(): value for name, value in response.getheaders()}
    return response.status, fields, response.read()


def get(of: socket.socket, path: str = "/") -> tuple[int, dict[str, str], bytes]:
    with client(of) as sock:
        sock.sendall(HEAD % path.encode())
        return answer(sock)


def seconds_until_closed(sock: socket.socket) -> float:
    """How long the peer leaves the connection open; it may refuse, but not answer."""
    start = time.monotonic()
    with suppress(ConnectionResetError):
        while received := sock.recv(1000):
            assert b" 200 " not in received
    return time.monotonic() - start


def websocket(of: socket.socket, path: str = "/", **keywords: Any) -> ClientConnection:
    keywords = {"max_size": None, "compression": None} | keywords
    return ws_connect(f"ws://localhost{path}", sock=client(of), **keywords)


def upgrade(sock: socket.socket) -> None:
    """Make the connection a websocket, by hand."""
    sock.sendall(UPGRADE % b"/")
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101")


def raw_websocket(of: socket.socket) -> socket.socket:
    """A websocket of a client that never answers."""
    sock = client(of)
    upgrade(sock)
    return sock


def make_certificates(folder: Path) -> None:
    """A CA, a certificate of it for the server, one for a client, an encrypted key."""
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    ca = trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("localhost", "client"):
        leaf = ca.issue_cert(name)
        leaf.private_key_pem.write_to_path(folder / f"{name}.key")
        leaf.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    key = load_pem_private_key((folder / "localhost.key").read_bytes(), None)
    (folder / "encrypted.key").write_bytes(
        key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
    )
    (folder / "password").write_text("secret\n")


def tls_options(files: Path, **more: Any) -> dict[str, Any]:
    return {
        "ssl_certfile": str(files / "localhost.pem"),
        "ssl_keyfile": str(files / "localhost.key"),
    } | more


def tls_context(files: Path, *alpn: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files / "ca.pem")
    context.set_alpn_protocols([*alpn, "http/1.1"])
    return context
