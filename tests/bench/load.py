"""wrk, which makes the load: one thread, 32 connections."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

from tests.bench.process import BenchError, Running

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
MISSING = "skipped: it needs wrk (apt-get install wrk)"


def available() -> bool:
    return shutil.which("wrk") is not None


def arguments(
    url: str, seconds: int, connections: int = 32, headers: tuple[str, ...] = ()
) -> list[str]:
    words = ["wrk", "--latency", "-c", str(connections), "-t", "1", "-d", f"{seconds}s"]
    return [*words, *(word for header in headers for word in ("-H", header)), url]


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk has measured; `p99` in seconds."""

    rate: float
    p99: float


def a_second(process: Running) -> float:
    """Requests a second, of one. BenchError when anything but 2xx came back."""
    return put(process, 1).rate


def put(
    process: Running,
    seconds: int,
    path: str = "",
    connections: int = 32,
    headers: tuple[str, ...] = (),
) -> Load:
    """Load a page of `process`. BenchError when anything but 2xx came back."""
    result = subprocess.run(
        arguments(f"{process.url}{path}", seconds, connections, headers),
        capture_output=True,
        text=True,
        check=False,
    )
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", result.stdout)
    slow = re.search(r"99%\s+([0-9.]+)(us|ms|s|m)", result.stdout)
    if rate is None or slow is None or re.search("Non-2xx", result.stdout):
        raise BenchError(f"{process.command}: wrk says\n{result.stdout}{result.stderr}")
    return Load(float(rate[1]), float(slow[1]) * UNITS[slow[2]])
