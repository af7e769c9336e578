"""The project `leased`, with rows in its database."""

from __future__ import annotations

import random
import socket
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, LiteralString

from tests.support.process import TIMEOUT
from tests.support.server import Server, copy_project, send

ROWS = 400

SCHEMA: LiteralString = (
    "CREATE TABLE leased_row (id integer PRIMARY KEY, number integer)"
)


def leased(into: Path) -> Path:
    """A copy of the project with its SQLite database."""
    root = copy_project("leased", into)
    with closing(sqlite3.connect(root / "db.sqlite3")) as database:
        database.execute(SCHEMA)
        values = ((number,) for number in range(ROWS))
        database.executemany("INSERT INTO leased_row (number) VALUES (?)", values)
        database.commit()
    return root


def at_once(clients: int, calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """The results of `calls`, as many at a time as there are clients."""
    with ThreadPoolExecutor(clients) as executor:
        futures = [executor.submit(call) for call in calls]
        return [future.result(4 * TIMEOUT) for future in futures]


class Mixture:
    """Random requests to the project, each with a tenant of its own that must not mix."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.random = random.Random(seed)
        self.done = 0

    def call(self) -> Callable[[], None]:
        """The next request."""
        choices: list[tuple[Callable[..., None], str]] = [
            (self.checked, "/sync/?"),
            (self.checked, "/awaits/?seconds=0.003&"),
            (self.checked, f"/sleep/?seconds={self.random.random() / 50:.4f}&"),
            (self.checked, "/nested/?"),
            (self.checked, "/soon/?"),
            (self.answered, "/rows/?"),
            (self.answered, "/count/?"),
            (self.answered, "/pieces/?"),
            (self.failed, "/fail/?"),
            (self.gone, "/awaits/?seconds=0.05&"),
            (self.gone, "/sleep/?seconds=0.02&"),
            (self.gone, "/stream/?"),
        ]
        check, path = self.random.choice(choices)
        tenant = f"{self.random.getrandbits(40):x}"
        return lambda: check(f"{path}tenant={tenant}", tenant)

    def checked(self, path: str, tenant: str) -> None:
        response, text = self.server.get(path)
        assert response.status == 200, text
        assert text == f"{tenant},{tenant}"
        assert response.headers["Tenant"] == f"{tenant},{tenant}"
        assert response.headers["Same-Thread"] == "True"

    def answered(self, path: str, tenant: str) -> None:
        response, text = self.server.get(path)
        assert response.status == 200, text
        assert response.headers["Tenant"] == f"{tenant},{tenant}"

    def failed(self, path: str, tenant: str) -> None:
        assert self.server.get(path)[0].status == 500

    def gone(self, path: str, tenant: str) -> None:
        """The client hangs up before the response is complete."""
        with self.server.connect() as sock:
            send(sock, path)
            sock.settimeout(0.01)
            with suppress(TimeoutError):
                sock.recv(100)


def open_stream(server: Server) -> socket.socket:
    """An event stream, of which the beginning has arrived."""
    sock = server.connect()
    send(sock, "/stream/")
    received = b""
    while b"first" not in received:
        piece = sock.recv(4096)
        assert piece, received
        received += piece
    return sock


def open_files(pid: int) -> list[str]:
    """What a process has open; nothing where the system does not show it."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            found.append(str(entry.readlink()))
        except FileNotFoundError:
            continue
    return found
