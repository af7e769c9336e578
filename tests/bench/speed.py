"""Django on ASGI beside Django on WSGI: synchronous and asynchronous views, one worker."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.bench import load
from tests.bench.commands import PROJECT, Command, Gunicorn, environment
from tests.bench.figures import Figure, Target
from tests.bench.memory import tree_memory
from tests.bench.process import Running
from tests.bench.turns import Measure, Side, take_turns

ROUNDS = 3
MISSING = "skipped: it needs gunicorn, and the database rows psycopg and PostgreSQL"


def available() -> bool:
    return importlib.util.find_spec("gunicorn") is not None


def measure(servers: list[str], rounds: int, seconds: int) -> Iterator[Figure]:
    for server in servers:
        yield from _views(server, rounds, seconds)
    with ExitStack() as stack:
        if database := _database(stack):
            for server in servers:
                yield from _stored(server, rounds, seconds, database)


def _rate(path: str, connections: int = 32, headers: tuple[str, ...] = ()) -> Measure:
    """Requests a second, of one."""

    def rate(process: Running) -> float:
        return load.put(process, 1, path, connections, headers).rate

    return rate


def _p99(process: Running, seconds: int) -> float:
    load.put(process, 1)
    return load.put(process, seconds).p99


def _p99_beside_blocked(process: Running, seconds: int) -> float:
    """Of a fast view, while 8 connections keep views blocked for a second each."""
    slow = subprocess.Popen(
        load.arguments(f"{process.url}blocked/1000", seconds + 3, connections=8),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        load.put(process, 2)
        return load.put(process, seconds).p99
    finally:
        slow.terminate()
        slow.wait()


def _memory(process: Running, seconds: int) -> float:
    load.put(process, seconds)
    return tree_memory(process.process.pid)


def _views(server: str, rounds: int, seconds: int) -> Iterator[Figure]:
    djasgi = Command(server, native=False)
    alone = Command("uvicorn", native=True, access_log=False)
    threads = Command(server, native=False, options=("--threads=16",))
    rates: list[tuple[str, str, Side, Side, Measure, float]] = [
        ("synchronous view", "uvicorn alone", djasgi, alone, _rate(""), 6.0),
        ("synchronous view", "gunicorn sync", djasgi, Gunicorn(), _rate(""), 0.9),
        ("synchronous view", "gthread 4", djasgi, Gunicorn(4), _rate(""), 1.0),
        ("asynchronous view", "uvicorn alone", djasgi, alone, _rate("awaited"), 3.0),
        ("view that blocks 20 ms", "uvicorn alone", threads, alone,
         _rate("blocked/20", 64), 3.0),
        ("view that blocks 20 ms", "gthread 16", threads, Gunicorn(16),
         _rate("blocked/20", 64), 1.0),
    ]  # fmt: skip
    for title, beside, ours, theirs, rate, least in rates:
        name = f"{title}, {server} beside {beside}"
        yield _compare_rates(name, ours, theirs, rate, least, rounds, seconds)
    # Without the handler and the pool: how much more than that the worker takes.
    plain = Command(server, native=False, options=("--handler=django", "--threads=0"))
    others = [
        (f"p99 beside blocked views, {server} beside uvicorn alone", "s", alone,
         _p99_beside_blocked, 1.0),
        (f"p99, 32 connections, {server} beside uvicorn alone", "s", alone, _p99, 0.4),
        (f"memory after load, {server}: without the handler and the pool, and with",
         "MiB", plain, _memory, 1.08),
    ]  # fmt: skip
    for name, unit, theirs, how, most in others:
        commands = {"djasgi": str(djasgi), "native": str(theirs)}
        figure = Figure(name, unit, Target("at most", most), commands)
        once = partial(how, seconds=seconds)
        yield take_turns(figure, djasgi, theirs, once, rounds=rounds)


def _compare_rates(
    title: str,
    ours: Side,
    theirs: Side,
    rate: Measure,
    least: float,
    rounds: int,
    seconds: int,
) -> Figure:
    commands = {"djasgi": str(ours), "native": str(theirs)}
    figure = Figure(title, "req/s", Target("at least", least), commands)
    return take_turns(
        figure, ours, theirs, rate, rounds=rounds, turns=seconds, warm_up=rate
    )


def _database(stack: ExitStack) -> tuple[dict[str, object], str] | None:
    """Settings of a throw-away PostgreSQL and a session cookie; None without one."""
    if importlib.util.find_spec("psycopg") is None:
        return None
    from tests.support import postgres

    if postgres.PROGRAMS is None:
        return None
    server = stack.enter_context(postgres.postgres())
    settings = server.create("bench")
    variables = _variables(settings, 0)
    script = Path(__file__).parent / "project" / "prepare.py"
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=PROJECT,
        env=environment() | dict(variables),
        capture_output=True,
        text=True,
        check=True,
    )
    return settings, done.stdout.split()[-1]


def _variables(settings: dict[str, object], age: int) -> tuple[tuple[str, str], ...]:
    database = json.dumps(settings | {"CONN_MAX_AGE": age})
    return (
        ("DJANGO_SETTINGS_MODULE", "bench.stored"),
        ("BENCH_DATABASE", database),
        ("PYTHONPATH", os.pathsep.join((environment()["PYTHONPATH"], str(PROJECT)))),
    )


def _stored(
    server: str, rounds: int, seconds: int, database: tuple[dict[str, object], str]
) -> Iterator[Figure]:
    settings, session = database
    once, kept = _variables(settings, 0), _variables(settings, 600)
    how = _rate("account", headers=(f"Cookie: sessionid={session}",))
    title = f"session, user and one query from PostgreSQL, {server} beside"
    yield _compare_rates(
        f"{title} uvicorn alone, CONN_MAX_AGE 600 and 0",
        Command(server, native=False, variables=kept),
        Command("uvicorn", native=True, variables=once),
        how,
        3.0,
        rounds,
        seconds,
    )
    yield _compare_rates(
        f"{title} gthread 16, CONN_MAX_AGE 600",
        Command(server, native=False, variables=kept, options=("--threads=16",)),
        Gunicorn(16, variables=kept),
        how,
        0.9,
        rounds,
        seconds,
    )
