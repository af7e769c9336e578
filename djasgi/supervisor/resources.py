"""How many workers fit into what this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024

WORKER_MEMORY = 128 * MIB
"""Bytes that one worker is taken to need: a Django project of middle size."""

MOST_WORKERS = 512

UNLIMITED_MEMORY = 2**60
"""cgroup v1 writes "no limit" as the greatest number of pages, in bytes."""


@dataclass(frozen=True, slots=True)
class Readings:
    """What this process may use; None is without a limit."""

    cpus: int
    quota: float | None = None
    memory: int | None = None


def worker_count(readings: Readings | None = None) -> tuple[int, str]:
    """The number of workers, and the arithmetic behind it as one line.

    One for each CPU that this process may run on, no more than its CPU quota (rounded
    up) and its memory limit leave room for, and at least one.
    """
    readings = readings or read()
    terms = [(readings.cpus, _plural(readings.cpus, "CPU"))]
    if readings.quota is not None:
        terms.append((math.ceil(readings.quota), f"{readings.quota:g} CPUs of quota"))
    if readings.memory is not None:
        text = f"{readings.memory // MIB} MiB of memory / {WORKER_MEMORY // MIB} MiB"
        terms.append((readings.memory // WORKER_MEMORY, text))
    number = min(max(1, min(value for value, _ in terms)), MOST_WORKERS)
    texts = [text for _, text in terms]
    least = texts[0] if len(texts) == 1 else f"min({', '.join(texts)})"
    return number, f"{_plural(number, 'worker')} = {least}"


def _plural(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def read(root: Path = Path("/")) -> Readings:
    """What the system says: the affinity, and the cgroups below `root`.

    cgroup v1 and v2: cgroups(7), and cpu.max and memory.max in the kernel's
    Documentation/admin-guide/cgroup-v2.rst. A limit of any ancestor counts.
    """
    quotas: list[float] = []
    memory: list[int] = []
    for directory in cgroups(root):
        quotas += _cpu_v2(directory)
        quotas += _cpu_v1(directory)
        for name in ("memory.max", "memory.limit_in_bytes"):
            memory += [n for n in _numbers(directory / name) if n < UNLIMITED_MEMORY]
    return Readings(_cpus(), min(quotas, default=None), min(memory, default=None))


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_v2(directory: Path) -> list[float]:
    numbers = _numbers(directory / "cpu.max")
    return [numbers[0] / numbers[1]] if len(numbers) == 2 else []  # noqa: PLR2004  # quota and period


def _cpu_v1(directory: Path) -> list[float]:
    quota = _numbers(directory / "cpu.cfs_quota_us")
    period = _numbers(directory / "cpu.cfs_period_us")
    return [quota[0] / period[0]] if quota and period else []


def _numbers(path: Path) -> list[int]:
    """The positive numbers in a file; "max" and -1 are no limit, so none."""
    numbers = []
    for word in _text(path).split():
        with suppress(ValueError):
            numbers.append(int(word))
    return [number for number in numbers if number > 0]


def _text(path: Path) -> str:
    with suppress(OSError, ValueError):
        return path.read_text()
    return ""


def cgroups(root: Path) -> Iterator[Path]:
    """The directories of this process's cgroups and of their ancestors."""
    mounts = [*_mounts(root)]
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        wanted = set(controllers.split(","))  # {""} is the hierarchy of v2
        for names, top, directory in mounts:
            if wanted <= names:
                yield from _ancestors(path, top, directory)


def _mounts(root: Path) -> Iterator[tuple[set[str], str, Path]]:
    """Mounted hierarchies: controllers ("" for v2), root inside, mount point.

    The fields of /proc/self/mountinfo are those of proc_pid_mountinfo(5).
    """
    for line in _text(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if kind[:1] == ["cgroup2"]:
            yield {""}, fields[3], root / fields[4].lstrip("/")
        elif kind[:1] == ["cgroup"]:
            yield set(kind[2].split(",")), fields[3], root / fields[4].lstrip("/")


def _ancestors(path: str, top: str, directory: Path) -> Iterator[Path]:
    # Without a cgroup namespace the path is the host's, and the mount shows a part.
    inside = path.removeprefix(top) if path.startswith(top) else ""
    parts = [part for part in inside.split("/") if part not in ("", "..")]
    for length in range(len(parts), -1, -1):
        yield directory.joinpath(*parts[:length])
