"""Django on ASGI beside Django on WSGI: synchronous and asynchronous views, one worker."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.bench import load
from tests.bench.commands import PROJECT, Command, Gunicorn, environment
from tests.bench.figures import Figure, Target, interleave
from tests.bench.memory import tree_memory
from tests.bench.process import Running, progress, running

ROUNDS = 3
MISSING = "skipped: it needs gunicorn, and the database rows psycopg and PostgreSQL"

Side = Command | Gunicorn
Measure = Callable[[Running, int], float]


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
    def requests(process: Running, seconds: int) -> float:
        load.put(process, 1, path, connections, headers)
        return load.put(process, seconds, path, connections, headers).rate

    return requests


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
    rows: list[tuple[str, str, str, Side, Side, Measure, Target]] = [
        ("synchronous view", "uvicorn alone", "req/s", djasgi, alone, _rate(""),
         Target("at least", 6.0)),
        ("synchronous view", "gunicorn sync", "req/s", djasgi, Gunicorn(), _rate(""),
         Target("at least", 0.9)),
        ("synchronous view", "gthread 4", "req/s", djasgi, Gunicorn(4), _rate(""),
         Target("at least", 1.0)),
        ("asynchronous view", "uvicorn alone", "req/s", djasgi, alone,
         _rate("awaited"), Target("at least", 3.0)),
        ("view that blocks 20 ms", "uvicorn alone", "req/s", threads, alone,
         _rate("blocked/20", 64), Target("at least", 3.0)),
        ("view that blocks 20 ms", "gthread 16", "req/s", threads, Gunicorn(16),
         _rate("blocked/20", 64), Target("at least", 1.0)),
        ("p99 beside blocked views", "uvicorn alone", "s", djasgi, alone,
         _p99_beside_blocked, Target("at most", 1.0)),
        ("p99, 32 connections", "uvicorn alone", "s", djasgi, alone, _p99,
         Target("at most", 0.4)),
    ]  # fmt: skip
    for title, beside, unit, ours, theirs, how, target in rows:
        name = f"{title}, {server} beside {beside}"
        yield _compare(name, unit, ours, theirs, how, target, rounds, seconds)
    yield _compare_memory(server, djasgi, alone, rounds, seconds)


def _compare(
    title: str,
    unit: str,
    ours: Side,
    theirs: Side,
    how: Measure,
    target: Target,
    rounds: int,
    seconds: int,
) -> Figure:
    figure = Figure(title, unit, target, {"djasgi": str(ours), "native": str(theirs)})

    def value(side: Side) -> float:
        progress(title)
        with running(side) as process:
            process.wait_for_answer()
            return how(process, seconds)

    return interleave(figure, rounds, lambda: value(ours), lambda: value(theirs))


def _compare_memory(
    server: str, ours: Side, alone: Side, rounds: int, seconds: int
) -> Figure:
    """How much more than uvicorn alone the worker takes, its supervisor left out."""
    title = f"memory after load, {server}: without the handler and the pool, and with"
    plain = Command(server, native=False, options=("--handler=django", "--threads=0"))
    return _compare(
        title, "MiB", ours, plain, _memory, Target("at most", 1.08), rounds, seconds
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
    yield _compare(
        f"{title} uvicorn alone, CONN_MAX_AGE 600 and 0",
        "req/s",
        Command(server, native=False, variables=kept),
        Command("uvicorn", native=True, variables=once),
        how,
        Target("at least", 3.0),
        rounds,
        seconds,
    )
    yield _compare(
        f"{title} gthread 16, CONN_MAX_AGE 600",
        "req/s",
        Command(server, native=False, variables=kept, options=("--threads=16",)),
        Gunicorn(16, variables=kept),
        how,
        Target("at least", 0.9),
        rounds,
        seconds,
    )
