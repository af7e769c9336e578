"""From the launch to the first answer."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench.commands import Command
from tests.bench.figures import Figure, Target, interleave
from tests.bench.process import progress, running

ROUNDS = 9
WORKERS = 4


def measure(servers: list[str], rounds: int) -> Iterator[Figure]:
    for server in servers:
        yield _first_answer(server, rounds)
    for server in servers:
        yield _all_workers(server, rounds)


def _first_answer(server: str, rounds: int) -> Figure:
    djasgi, native = Command(server, native=False), Command(server, native=True)
    figure = _figure(f"launch to the first page, {server}", djasgi, native, limit=1.05)

    def seconds(command: Command) -> float:
        progress(figure.title)
        with running(command) as process:
            return process.wait_for_answer()

    seconds(djasgi), seconds(native)  # what is compiled and cached once is not measured
    return interleave(figure, rounds, lambda: seconds(djasgi), lambda: seconds(native))


def _all_workers(server: str, rounds: int) -> Figure:
    djasgi = Command(server, native=False, workers=WORKERS)
    native = Command("uvicorn", native=True, workers=WORKERS)
    title = f"launch until {WORKERS} workers have answered, {server} beside uvicorn's"
    figure = _figure(title, djasgi, native, limit=0.45)

    def seconds(command: Command) -> float:
        progress(title)
        with running(command) as process:
            return process.wait_for_workers(WORKERS)

    seconds(djasgi), seconds(native)
    return interleave(figure, rounds, lambda: seconds(djasgi), lambda: seconds(native))


def _figure(title: str, djasgi: Command, native: Command, limit: float) -> Figure:
    commands = {"djasgi": str(djasgi), "native": str(native)}
    return Figure(title, "s", Target("at most", limit), commands)
