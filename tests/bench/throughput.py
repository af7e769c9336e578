"""Requests a second, with the same options."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tests.bench import load
from tests.bench.commands import DJANGO, HELLO, Command
from tests.bench.figures import Figure, Target
from tests.bench.turns import take_turns

ROUNDS = 3
APPLICATIONS = {DJANGO: "synchronous view", HELLO: "bare ASGI application"}


def measure(servers: list[str], rounds: int, seconds: int) -> Iterator[Figure]:
    for server, application, access_log in product(
        servers, APPLICATIONS, (False, True)
    ):
        yield _compare(server, application, access_log, rounds, seconds)


def _compare(
    server: str, application: str, access_log: bool, rounds: int, seconds: int
) -> Figure:
    ours = Command(server, False, application, access_log=access_log)
    alone = Command(server, True, application, access_log=access_log)
    log = "with access log" if access_log else "no access log"
    figure = Figure(
        f"{APPLICATIONS[application]}, {log}, {server}",
        "req/s",
        Target("at least", 0.98),
        {"djasgi": str(ours), "native": str(alone)},
    )
    return take_turns(
        figure,
        ours,
        alone,
        load.a_second,
        rounds=rounds,
        turns=seconds,
        warm_up=load.a_second,
    )
