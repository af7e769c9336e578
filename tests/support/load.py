"""A constant load of clients of several kinds, and what became of each request.

The clients write HTTP and websocket frames themselves: what is counted is what came
over the socket, and on which connection.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import struct
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Self

PATIENCE = 45.0
"""Seconds until a request without an answer has failed."""

THINK = 0.5
"""Seconds that a client waits between two requests, at most."""

LATE = 1.5
"""Seconds after which an idle connection may be closed, by the server's linger of 2."""

KINDS = {"short": 6, "slow": 4, "stream": 3, "events": 2, "websocket": 4}
"""How many clients there are of each kind."""

RESTART = 1012


class FailedError(Exception):
    """What was not as it should be."""


@dataclass(slots=True)
class Failure:
    """A request that was not answered, and where it was sent."""

    kind: str
    what: str
    port: int
    opened: float
    sent: float
    failed: float
    reused: bool
    idle: float


@dataclass(slots=True)
class Tally:
    """Counts by kind of client."""

    answered: Counter[str] = field(default_factory=Counter)
    reused: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    """Ended early, and properly, by a worker that is on its way out."""
    failures: list[Failure] = field(default_factory=list)
    slowest: float = 0.0


class Connection:
    """To the server, for one request after another."""

    def __init__(self, port: int) -> None:
        self.server = port
        self.port = 0
        self.opened = 0.0
        self.requests = 0
        self.quiet = 0.0
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        if self.writer is None:
            self.requests, self.port, self.opened = 0, 0, monotonic()
            opening = asyncio.open_connection("127.0.0.1", self.server)
            self.reader, self.writer = await opening
            self.port = self.writer.get_extra_info("sockname")[1]
            self.quiet = monotonic()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def send(self, path: str, *fields: str) -> None:
        assert self.writer is not None
        self.requests += 1
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", *fields, "", ""]
        self.writer.write("\r\n".join(lines).encode())

    async def head(self) -> tuple[int, dict[str, str]]:
        text = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = text.rstrip().split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return int(first.split()[1]), headers

    async def body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            raise FailedError("a response without a length")
        data = b""
        while chunk := await self.chunk():
            data += chunk
        return data

    async def chunk(self) -> bytes:
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]


class Load:
    """The clients, in a thread of their own. A context manager."""

    def __init__(self, port: int, seed: int, kinds: dict[str, int] = KINDS) -> None:
        self.port = port
        self.tally = Tally()
        self._kinds = kinds
        self._random = random.Random(seed)
        self._over = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over = True
        self._thread.join()

    async def _run(self) -> None:
        exchanges: dict[str, Callable[[Connection], Awaitable[None]]] = {
            "short": self._short,
            "slow": self._slow,
            "stream": self._stream,
            "events": self._events,
            "websocket": self._websocket,
        }
        await asyncio.gather(
            *(
                self._client(kind, exchanges[kind])
                for kind, count in self._kinds.items()
                for _ in range(count)
            )
        )

    async def _client(
        self, kind: str, exchange: Callable[[Connection], Awaitable[None]]
    ) -> None:
        connection = Connection(self.port)
        while not self._over:
            await asyncio.sleep(self._random.uniform(0, THINK))
            await self._once(kind, exchange, connection)
        connection.close()

    async def _once(
        self,
        kind: str,
        exchange: Callable[[Connection], Awaitable[None]],
        connection: Connection,
    ) -> None:
        sent, reused, idle = monotonic(), connection.writer is not None, 0.0
        try:
            async with asyncio.timeout(PATIENCE):
                await connection.open()
                sent = monotonic()
                idle = sent - connection.quiet
                await exchange(connection)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, FailedError) as e:
            what = f"{type(e).__name__} {e}".strip()
            self.tally.failures.append(
                Failure(
                    *(kind, what, connection.port, connection.opened, sent),
                    *(monotonic(), reused, idle),
                )
            )
            connection.close()
            return
        connection.quiet = monotonic()
        self.tally.answered[kind] += 1
        self.tally.reused[kind] += reused
        self.tally.slowest = max(self.tally.slowest, connection.quiet - sent)

    async def _get(self, connection: Connection, path: str) -> bytes:
        connection.send(path)
        status, headers = await connection.head()
        body = await connection.body(headers)
        if headers.get("connection", "").lower() == "close":
            connection.close()
        if status != 200:
            raise FailedError(f"answered {status}")
        return body

    async def _short(self, connection: Connection) -> None:
        await self._get(connection, "/")

    async def _slow(self, connection: Connection) -> None:
        await self._get(connection, f"/slow/{self._random.randint(100, 1500)}/")

    async def _stream(self, connection: Connection) -> None:
        if await self._get(connection, "/stream/1000/") != b"0123456789":
            raise FailedError("another body")

    async def _events(self, connection: Connection) -> None:
        """Leaves after a while, unless it is asked to come again."""
        until = monotonic() + self._random.uniform(1, 4)
        connection.send("/events/")
        status, _ = await connection.head()
        if status != 200:
            raise FailedError(f"answered {status}")
        while monotonic() < until:
            if not await connection.chunk():
                self.tally.ended["events"] += 1
                break
        connection.close()

    async def _websocket(self, connection: Connection) -> None:
        """Says something a few times; the server may send it elsewhere, by 1012."""
        connection.close()  # the one before
        await connection.open()
        key = base64.b64encode(os.urandom(16)).decode()
        connection.send(
            "/",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
        )
        status, headers = await connection.head()
        if status != 101:
            with suppress(FailedError):
                await connection.body(headers)
            connection.close()
            raise FailedError(f"answered {status}")
        for _ in range(self._random.randint(1, 8)):
            if not await self._said(connection):
                self.tally.ended["websocket"] += 1
                break
            await asyncio.sleep(self._random.uniform(0, THINK))
        connection.close()

    async def _said(self, connection: Connection) -> bool:
        """Whether the websocket has answered; it may be closed by 1012 instead."""
        assert connection.writer is not None
        mask, text = os.urandom(4), b"who"
        masked = bytes(c ^ mask[i % 4] for i, c in enumerate(text))
        connection.writer.write(bytes([0x81, 0x80 | len(text)]) + mask + masked)
        while True:
            first, size = await connection.reader.readexactly(2)
            payload = await connection.reader.readexactly(size & 0x7F)
            match first & 0x0F:
                case 1:
                    return True
                case 8:
                    code = struct.unpack("!H", payload[:2])[0]
                    if code != RESTART:
                        raise FailedError(f"closed with {code}")
                    return False
