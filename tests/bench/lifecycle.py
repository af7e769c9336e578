"""What a deploy, a crash and a blocked event loop cost those who are being served."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import quantiles
from time import monotonic

from tests.bench.commands import Command
from tests.bench.figures import Figure, Target, interleave
from tests.bench.process import Running, progress, running

ROUNDS = 3
CLIENTS = 16
THINK = 0.01
"""Seconds between an answer and the next request of a client."""
REUSED = 20
"""Requests on one connection."""
WORKERS = 4
HANG_TIMEOUT = 2

REQUEST = b"GET /who HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@dataclass(slots=True)
class Tally:
    """What the clients have seen; times in seconds."""

    answered: list[tuple[float, float]] = field(default_factory=list)
    failed: int = 0
    reset: int = 0
    pids: list[tuple[float, bytes]] = field(default_factory=list)

    def p99(self, begin: float, end: float) -> float:
        times = [took for at, took in self.answered if begin <= at <= end]
        return quantiles(times, n=100)[98] if len(times) > 1 else 0.0


async def client(port: int, tally: Tally, stop: asyncio.Event) -> None:
    """Ask again and again, on connections that are reused until the server says no."""
    while not stop.is_set():
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                for number in range(REUSED):
                    if not await ask(reader, writer, tally, reused=number > 0):
                        break
                    await asyncio.sleep(THINK)
                    if stop.is_set():
                        break
            finally:
                writer.close()
            continue
        tally.failed += 1
        await asyncio.sleep(THINK)


async def ask(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    tally: Tally,
    *,
    reused: bool,
) -> bool:
    """One request; whether the connection can be used again."""
    began = monotonic()
    try:
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        body = await reader.readexactly(length)
    except (OSError, asyncio.IncompleteReadError, ValueError):
        if reused:
            tally.reset += 1
        tally.failed += 1
        return False
    if head.startswith(b"HTTP/1.1 200"):
        tally.answered.append((began, monotonic() - began))
        tally.pids.append((monotonic(), body))
    else:
        tally.failed += 1
    return b"connection: close" not in head.lower()


def measure(servers: list[str], rounds: int, seconds: int) -> Iterator[Figure]:
    for server in servers:
        yield from _reload(server, rounds, seconds)
        yield _killed(server, rounds)
        yield _blocked(server, rounds)


def _reload(server: str, rounds: int, seconds: int) -> Iterator[Figure]:
    djasgi = Command(server, native=False, workers=2)
    native = Command("uvicorn", native=True, workers=2)
    commands = {"djasgi": str(djasgi), "native": str(native)}
    title = f"reload under load, {server} beside uvicorn's own"
    failed = Figure(
        f"{title}: failed", "req", Target("at most", 0, of="value"), commands
    )
    reset = Figure(f"{title}: reset", "req", Target("at most", 0, of="value"), commands)
    slower = Figure(
        f"{title}: p99 / steady p99",
        "times",
        Target("at most", 2.0, of="value"),
        commands,
    )
    for number in range(rounds):
        sides = [(djasgi, True), (native, False)]
        for command, ours in sides if number % 2 == 0 else reversed(sides):
            progress(title)
            with running(command) as process:
                process.wait_for_workers(2)
                tally, ratio = asyncio.run(_reload_once(process, seconds))
            for figure, value in (
                (failed, float(tally.failed)),
                (reset, float(tally.reset)),
                (slower, ratio),
            ):
                (figure.djasgi if ours else figure.native).append(value)
    yield from (failed, reset, slower)


async def _reload_once(process: Running, seconds: int) -> tuple[Tally, float]:
    tally, stop = Tally(), asyncio.Event()
    clients = [
        asyncio.create_task(client(process.port, tally, stop)) for _ in range(CLIENTS)
    ]
    began = monotonic()
    await asyncio.sleep(seconds)
    before = {pid for _, pid in tally.pids}
    asked = monotonic()
    process.process.send_signal(signal.SIGHUP)
    while before & {pid for at, pid in tally.pids if at > monotonic() - 1}:
        process.check()
        await asyncio.sleep(0.1)
    ended = monotonic()
    await asyncio.sleep(1)
    stop.set()
    await asyncio.gather(*clients)
    return tally, tally.p99(asked, ended) / tally.p99(began, asked)


def _killed(server: str, rounds: int) -> Figure:
    djasgi = Command(server, native=False, workers=WORKERS)
    native = Command("uvicorn", native=True, workers=WORKERS)
    figure = Figure(
        f"worker killed, until another has answered, {server} beside uvicorn's own",
        "s",
        Target("at most", 0.5, of="value"),
        {"djasgi": str(djasgi), "native": str(native)},
    )

    def seconds(command: Command) -> float:
        progress(figure.title)
        with running(command) as process:
            process.wait_for_workers(WORKERS)
            return asyncio.run(_replaced(process, signal.SIGKILL))

    return interleave(figure, rounds, lambda: seconds(djasgi), lambda: seconds(native))


async def _replaced(process: Running, number: signal.Signals) -> float:
    """Seconds from the end of one worker until a process that is new has answered."""
    tally, stop = Tally(), asyncio.Event()
    clients = [
        asyncio.create_task(client(process.port, tally, stop)) for _ in range(CLIENTS)
    ]
    while len({pid for _, pid in tally.pids}) < WORKERS:
        await asyncio.sleep(0.01)
    before = {pid for _, pid in tally.pids}
    os.kill(int(next(iter(before))), number)
    began = monotonic()
    while {pid for at, pid in tally.pids if at > began} <= before:
        process.check()
        await asyncio.sleep(0.01)
    took = min(at for at, pid in tally.pids if pid not in before) - began
    stop.set()
    await asyncio.gather(*clients)
    return took


def _blocked(server: str, rounds: int) -> Figure:
    options = (f"--hang-timeout={HANG_TIMEOUT}",)
    djasgi = Command(server, native=False, workers=WORKERS, options=options)
    figure = Figure(
        f"event loop blocked, until another worker has answered, {server}",
        "s",
        Target("at most", HANG_TIMEOUT + 1, of="value"),
        {"djasgi": str(djasgi)},
    )
    for _ in range(rounds):
        progress(figure.title)
        with running(djasgi) as process:
            process.wait_for_workers(WORKERS)
            figure.djasgi.append(asyncio.run(_unblocked(process)))
    return figure


async def _unblocked(process: Running) -> float:
    tally, stop = Tally(), asyncio.Event()
    clients = [
        asyncio.create_task(client(process.port, tally, stop)) for _ in range(CLIENTS)
    ]
    while len({pid for _, pid in tally.pids}) < WORKERS:
        await asyncio.sleep(0.01)
    before = {pid for _, pid in tally.pids}
    _, writer = await asyncio.open_connection("127.0.0.1", process.port)
    writer.write(REQUEST.replace(b"/who", b"/block"))
    began = monotonic()
    while {pid for at, pid in tally.pids if at > began} <= before:
        process.check()
        await asyncio.sleep(0.01)
    took = min(at for at, pid in tally.pids if pid not in before) - began
    stop.set()
    writer.close()
    for task in clients:  # those on the blocked worker wait for it
        task.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    return took
