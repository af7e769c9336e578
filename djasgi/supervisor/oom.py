"""Whether the kernel has killed something of ours for lack of memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from djasgi.supervisor.resources import cgroups

RECENT = 10.0
"""Seconds within which a process that the kernel has killed is seen to end.

Such a process ends when its memory was given back, and a machine that has none is slow.
"""


class OutOfMemory:
    """Counts kills in this process's cgroup, of cgroup v1 and v2.

    `oom_kill` in memory.events (the kernel's Documentation/admin-guide/cgroup-v2.rst)
    and in memory.oom_control. Each kill explains the end of one process, shortly after.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._file: Path | None = None
        self._count = 0
        self._unexplained = 0
        self._noticed = 0.0

    def prepare(self) -> None:
        """Read the counters: what was before is no kill of a worker."""
        self._count = self._read()

    def look(self, now: float) -> None:
        """Notice kills. One of some other process explains nothing for long."""
        before, self._count = self._count, self._read()
        if self._count > before:
            self._unexplained += self._count - before
            self._noticed = now
        elif now - self._noticed > RECENT:
            self._unexplained = 0

    def happened(self, now: float) -> bool:
        """Whether there was a kill, just now, that has not yet explained an end."""
        self.look(now)
        if not self._unexplained:
            return False
        self._unexplained -= 1
        return True

    def _read(self) -> int:
        if self._file is None:
            self._file = next(self._files(), Path(os.devnull))
        return _count(self._file)

    def _files(self) -> Iterator[Path]:
        """The nearest first: those further up count the kills of strangers as well."""
        for directory in cgroups(self._root):
            for name in ("memory.events", "memory.oom_control"):
                if (directory / name).is_file():
                    yield directory / name


def _count(file: Path) -> int:
    with suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
    return 0
