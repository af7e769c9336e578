"""Requests a second, with the same options."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

from tests.bench import load
from tests.bench.commands import DJANGO, HELLO, Command
from tests.bench.figures import Figure, Target, interleave
from tests.bench.process import progress, running

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
    """Both are up and take turns of a second: a machine changes from one to the next."""
    sides = [
        Command(server, native, application, access_log=access_log)
        for native in (False, True)
    ]
    log = "with access log" if access_log else "no access log"
    figure = Figure(
        f"{APPLICATIONS[application]}, {log}, {server}",
        "req/s",
        Target("at least", 0.98),
        {"djasgi": str(sides[0]), "native": str(sides[1])},
    )
    for _ in range(rounds):
        progress(figure.title)
        with running(sides[0]) as djasgi, running(sides[1]) as native:
            for process in (djasgi, native):
                process.wait_for_answer()
                load.requests_per_second(process, 1)
            interleave(
                figure,
                seconds,
                partial(load.requests_per_second, djasgi, 1),
                partial(load.requests_per_second, native, 1),
            )
    return figure
