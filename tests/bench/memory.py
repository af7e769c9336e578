"""Memory of everything that a command has started, after load (Linux)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from tests.bench import load
from tests.bench.commands import Command
from tests.bench.figures import Figure, Target, interleave
from tests.bench.process import progress, running

ROUNDS = 1
WORKERS = (1, 4, 8)
# Of the whole tree of 8 workers, and of each further one.
TREE = Target("at most", 0.42)
ONE = Target("at most", 1.35)
FURTHER = Target("at most", 10.0, of="value")
MISSING = "skipped: it needs /proc/PID/smaps_rollup (Linux)"


def available() -> bool:
    return Path("/proc/self/smaps_rollup").exists()


def measure(servers: list[str], rounds: int, seconds: int) -> Iterator[Figure]:
    for server in servers:
        figures = [_tree(server, workers, rounds, seconds) for workers in WORKERS]
        yield from figures
        yield _further(server, *figures[-2:])


def _tree(server: str, workers: int, rounds: int, seconds: int) -> Figure:
    djasgi = Command(server, native=False, workers=workers)
    native = Command("uvicorn", native=True, workers=workers)
    figure = Figure(
        f"memory, workers: {workers}, {server} beside uvicorn's own",
        "MiB",
        {WORKERS[0]: ONE, WORKERS[-1]: TREE}.get(workers),
        {"djasgi": str(djasgi), "native": str(native)},
    )

    def mebibytes(command: Command) -> float:
        progress(figure.title)
        with running(command) as process:
            process.wait_for_workers(workers)
            load.put(process, seconds)
            return tree_memory(process.process.pid)

    return interleave(
        figure, rounds, lambda: mebibytes(djasgi), lambda: mebibytes(native)
    )


def _further(server: str, four: Figure, eight: Figure) -> Figure:
    return Figure(
        f"memory of each further worker, {server}",
        "MiB",
        FURTHER,
        djasgi=_each(four.djasgi, eight.djasgi),
        native=_each(four.native, eight.native),
    )


def _each(four: list[float], eight: list[float]) -> list[float]:
    return [(more - less) / 4 for less, more in zip(four, eight, strict=True)]


def tree_memory(pid: int) -> float:
    """The memory of a process and all its descendants, in MiB."""
    return sum(map(_pss, _tree_of(pid)))


def _tree_of(pid: int) -> list[int]:
    """The process and all its descendants."""
    pids = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children = (task / "children").read_text().split()
            pids += [found for child in children for found in _tree_of(int(child))]
    return pids


def _pss(pid: int) -> float:
    """The proportional set size in MiB: what is shared is divided by its sharers."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    match = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    assert match
    return int(match[1]) / 1024
