"""Whether the kernel has killed something of ours for lack of memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from djasgi.supervisor.resources import cgroups


class OutOfMemory:
    """Counts kills in this process's cgroup, of cgroup v1 and v2.

    `oom_kill` in memory.events (the kernel's Documentation/admin-guide/cgroup-v2.rst)
    and in memory.oom_control.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._file: Path | None = None
        self._count = 0

    def prepare(self) -> None:
        """Read the counters, so that `happened` can tell what is new."""
        self._count = self._read()

    def happened(self) -> bool:
        """Whether there was a kill since the last look, or since `prepare`."""
        before, self._count = self._count, self._read()
        return self._count > before

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
