"""The commands that only say something."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from time import perf_counter

from tests.bench.commands import PROJECT, environment
from tests.bench.figures import Figure, Target, interleave
from tests.bench.process import progress

ROUNDS = 21
LIMITS = {"--version": 0.10, "--help": 0.20}
NOTHING = [sys.executable, "-c", "pass"]


def measure(rounds: int) -> Iterator[Figure]:
    for option, limit in LIMITS.items():
        yield _compare(option, limit, rounds)


def _compare(option: str, limit: float, rounds: int) -> Figure:
    figure = Figure(
        f"djasgi {option} beside python -c pass",
        "s",
        Target("at most", limit, of="value"),
        {"djasgi": f"python -m djasgi {option}", "native": "python -c pass"},
    )
    progress(figure.title)
    command = [sys.executable, "-m", "djasgi", option]
    _seconds(command)
    return interleave(
        figure, rounds, lambda: _seconds(command), lambda: _seconds(NOTHING)
    )


def _seconds(command: list[str]) -> float:
    begun = perf_counter()
    subprocess.run(
        command, cwd=PROJECT, env=environment(), capture_output=True, check=True
    )
    return perf_counter() - begun
