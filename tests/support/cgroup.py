"""A cgroup with a limit of memory, where whoever runs the tests may make one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from djasgi.supervisor.resources import cgroups
from tests.support.process import until

LIMITS = ("memory.max", "memory.limit_in_bytes")
"""Of cgroup v2 and v1; a directory without either has no memory controller."""

NO_SWAP = (("memory.swap.max", "0"), ("memory.swappiness", "0"))


@contextmanager
def limited_memory(limit: int) -> Iterator[Path | None]:
    """A new cgroup whose processes have `limit` bytes; None where there can be none.

    Below the cgroup of this process, or one of its ancestors: in v2 a cgroup with
    processes has no children with controllers, but for the root.
    """
    for parent in cgroups(Path("/")):
        made = parent / f"djasgi-test-{os.getpid()}"
        try:
            made.mkdir()
        except OSError:
            continue
        try:
            if _can_limit(made, limit):
                yield made
                return
        finally:
            until(lambda made=made: _removed(made), f"nobody is left in {made}")  # type: ignore[misc]
    yield None


def entering(cgroup: Path) -> tuple[str, ...]:
    """What to put before a command so that it runs in `cgroup`."""
    return ("/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', f"{cgroup}/cgroup.procs")


def _can_limit(cgroup: Path, limit: int) -> bool:
    file = next((cgroup / name for name in LIMITS if (cgroup / name).exists()), None)
    if file is None:
        return False
    try:
        file.write_text(str(limit))
    except OSError:
        return False
    for name, value in NO_SWAP:
        with suppress(OSError):
            if (cgroup / name).exists():
                (cgroup / name).write_text(value)
    command = [*entering(cgroup), "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _removed(cgroup: Path) -> bool:
    with suppress(OSError):
        cgroup.rmdir()
    return not cgroup.exists()
