"""The stacks of the threads of workers: asked for, collected, and written to the log."""

from __future__ import annotations

import logging
from pathlib import Path
from time import monotonic
from typing import Any

from djasgi.supervisor import report
from djasgi.supervisor.children import Child

QUIET = 0.3
"""Seconds until the stacks that a worker was asked for are taken to be complete."""

_PACKAGE = Path(__file__).parent.parent
_BELOW = (f'"{_PACKAGE}/supervisor/', f'"{_PACKAGE}/serving.py"')

DEBUGGERS = ("/bdb.py", "/pdb.py", "/pydevd", "/debugpy/", "/pudb/", "/ipdb/")


class Dumps:
    """Those who were asked for their stacks, until when, and why."""

    def __init__(self) -> None:
        self._due: dict[Child, float] = {}
        self._stuck_threads: dict[Child, dict[str, Any]] = {}

    def __contains__(self, child: Child) -> bool:
        return child in self._due

    def begin(self, child: Child) -> None:
        """`child` is asked."""
        child.stacks.clear()
        self._due[child] = monotonic() + QUIET

    def explain(self, child: Child, threads: dict[str, Any]) -> None:
        """`child` has told that all its `threads` are stuck."""
        self._stuck_threads[child] = threads

    def deadlines(self) -> list[float]:
        return [*self._due.values()]

    def due(self, now: float) -> list[Child]:
        return [child for child, due in self._due.items() if due <= now]

    def end(self, child: Child) -> None:
        """What `child` has written is read now, and not waited for any more."""
        del self._due[child]

    def log(self, child: Child, *, hung: bool) -> bool:
        """Log what `child` has written, unless a debugger holds one that looks `hung`
        or stuck. Returns whether it looks hung and is held.
        """
        stacks = [line for line in child.stacks if line]
        debugged = is_debugged(stacks)
        if hung and debugged:
            return True
        threads = self._stuck_threads.pop(child, None)
        if threads is None or not debugged:
            log_stacks(child, stacks, threads)
        return False


def log_stacks(child: Child, stacks: list[str], threads: dict[str, Any] | None) -> None:
    """Log the stacks of a worker; with `threads`, that those are all stuck."""
    text = "the stacks of worker %d (pid %d)"
    arguments: tuple[object, ...] = (child.number, child.pid)
    if threads is not None:
        text = (
            "all threads of worker %d (pid %d) are stuck: in %d s none of %d has finished "
            "a call, and %d wait (--threads)"
        )
        numbers = (round(threads["seconds"]), threads["threads"], threads["waiting"])
        arguments += numbers
    elif not stacks:
        text = "worker %d (pid %d) did not write its stacks"
    details = "\n".join(readable(stacks))
    report.log(logging.WARNING, text, *arguments, details=details)


def readable(stacks: list[str]) -> list[str]:
    """`stacks`, as faulthandler writes them, without what is the same in each worker.

    That is how this program came to serve, below each stack, and its own threads.
    """
    kept: list[str] = []
    heading: list[str] = []
    below = False
    for line in stacks:
        if line.endswith("(most recent call first):"):
            heading, below = [line], False
        elif not below and not (below := any(part in line for part in _BELOW)):
            kept += [*heading, line]
            heading = []
    return kept or stacks


def is_debugged(stacks: list[str]) -> bool:
    """Whether the stacks of a worker, as faulthandler writes them, show a debugger."""
    return any(part in line for line in stacks for part in DEBUGGERS)
