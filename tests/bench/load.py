"""wrk, which makes the load: one thread, 32 connections."""

from __future__ import annotations

import re
import shutil
import subprocess

from tests.bench.process import BenchError, Running

MISSING = "skipped: it needs wrk (apt-get install wrk)"


def available() -> bool:
    return shutil.which("wrk") is not None


def arguments(url: str, seconds: int) -> list[str]:
    return ["wrk", "-c", "32", "-t", "1", "-d", f"{seconds}s", url]


def requests_per_second(process: Running, seconds: int) -> float:
    """Load `process` for `seconds`. BenchError when anything but 2xx came back."""
    result = subprocess.run(
        arguments(process.url, seconds), capture_output=True, text=True, check=False
    )
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", result.stdout)
    if rate is None or re.search(r"Non-2xx|Socket errors", result.stdout):
        raise BenchError(f"{process.command}: wrk says\n{result.stdout}{result.stderr}")
    return float(rate[1])
