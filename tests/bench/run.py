"""djasgi beside the servers' own commands: `make bench`, or in the repository

    python -m tests.bench.run --only launch,throughput --servers uvicorn --rounds 5

Both sides of a row are measured in turn, in the same run. The ratio is the median of
the turns' ratios; the columns are the medians of each side.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version

from tests.bench import (
    launch,
    layers,
    lifecycle,
    load,
    memory,
    speed,
    startup,
    throughput,
)
from tests.bench.commands import SERVERS
from tests.bench.figures import Figure, table
from tests.bench.process import BenchError, progress

PARTS = (
    "startup",
    "launch",
    "layers",
    "throughput",
    "memory",
    "lifecycle",
    "speed",
)


def main() -> int:
    arguments = parse(sys.argv[1:])
    figures: list[Figure] = []
    notes: list[str] = []
    try:
        for part in arguments.only:
            figures += measure(part, arguments, notes)
        failure = ""
    except BenchError as error:
        failure = f"Stopped: {error}"
    except KeyboardInterrupt:
        failure = "Stopped: interrupted"
    progress("")
    report = as_json if arguments.json else as_text
    print(report(figures, [*notes, failure] if failure else notes))
    return 1 if failure else 0


def measure(
    part: str, arguments: argparse.Namespace, notes: list[str]
) -> Iterator[Figure]:
    rounds, servers, seconds = arguments.rounds, arguments.servers, arguments.seconds
    if part in ("throughput", "memory") and not load.available():
        notes.append(f"{part} {load.MISSING}")
    elif part == "speed" and not (speed.available() and load.available()):
        notes.append(f"{part} {speed.MISSING}")
    elif part == "memory" and not memory.available():
        notes.append(f"{part} {memory.MISSING}")
    elif part == "startup":
        yield from startup.measure(rounds or startup.ROUNDS)
    elif part == "layers":
        yield from layers.measure(rounds or layers.ROUNDS)
    elif part == "launch":
        yield from launch.measure(servers, rounds or launch.ROUNDS)
    elif part == "throughput":
        yield from throughput.measure(servers, rounds or throughput.ROUNDS, seconds)
    elif part == "speed":
        yield from speed.measure(servers, rounds or speed.ROUNDS, seconds)
    elif part == "lifecycle":
        yield from lifecycle.measure(servers, rounds or lifecycle.ROUNDS, seconds)
    else:
        yield from memory.measure(servers, rounds or memory.ROUNDS, seconds)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        type=names(PARTS),
        default=PARTS,
        metavar="PART,…",
        help=f"of {', '.join(PARTS)} (all)",
    )
    parser.add_argument(
        "--servers",
        type=names(SERVERS),
        default=SERVERS,
        metavar="SERVER,…",
        help=f"of {', '.join(SERVERS)} (all)",
    )
    parser.add_argument(
        "--rounds",
        type=positive,
        help="measurements of each side (depends on the part)",
    )
    parser.add_argument(
        "--seconds", type=positive, default=5, help="of load in each measurement (5)"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    return parser.parse_args(argv)


def names(known: tuple[str, ...]) -> Callable[[str], list[str]]:
    def split(text: str) -> list[str]:
        chosen = text.split(",")
        if unknown := set(chosen) - set(known):
            message = f"{', '.join(sorted(unknown))}: choose from {', '.join(known)}"
            raise argparse.ArgumentTypeError(message)
        return chosen

    return split


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def machine() -> dict[str, object]:
    """What the figures depend on besides the code."""
    packages = ("django", *SERVERS)
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
    }


def as_text(figures: list[Figure], notes: list[str]) -> str:
    lines = [", ".join(f"{name} {value}" for name, value in machine().items()), ""]
    if figures:
        lines += [*table(figures), ""]
        lines.append(
            "Commands, in tests/bench/project, with this checkout on PYTHONPATH:"
        )
    for figure in figures:
        lines += [
            figure.title,
            *(f"  {command}" for command in figure.commands.values()),
        ]
    if any(figure.unit == "req/s" for figure in figures):
        lines += [
            "Load, of which rates are measured in turns of 1 s:",
            f"  {' '.join(load.arguments('http://127.0.0.1:8000/', 5))}",
        ]
    lines += ["", *notes] if notes else []
    lines += ["", f"Again: python -m tests.bench.run {' '.join(sys.argv[1:])}".rstrip()]
    return "\n".join(lines)


def as_json(figures: list[Figure], notes: list[str]) -> str:
    document = {
        "machine": machine(),
        "figures": [figure.as_json() for figure in figures],
        "notes": notes,
    }
    return json.dumps(document, indent=2)


if __name__ == "__main__":
    sys.exit(main())
