"""What the supervisor says: how processes ended, and why something did not work."""

from __future__ import annotations

import logging
import signal
from errno import EMFILE, ENFILE
from pathlib import Path
from typing import Any

from djasgi.errors import DjasgiError, ProjectError
from djasgi.supervisor.children import Child
from djasgi.supervisor.descriptors import descriptors_exhausted
from djasgi.supervisor.events import Cause, Lost, ReloadFailed, ReportFailure

logger = logging.getLogger("djasgi")

LOOPING = 3
"""So many crashes of one place without health between are called by their name."""

_PACKAGE = Path(__file__).parent.parent
_BELOW = (f'"{_PACKAGE}/supervisor/', f'"{_PACKAGE}/serving.py"')

DEBUGGERS = ("/bdb.py", "/pdb.py", "/pydevd", "/debugpy/", "/pudb/", "/ipdb/")


def log(level: int, text: str, *args: object, details: str = "") -> None:
    """Log with `details`, several lines of their own, below the message."""
    if logger.isEnabledFor(level):
        record = logger.makeRecord(
            logger.name, level, "", 0, text, args, None, sinfo=details or None
        )
        logger.handle(record)


def sentence(error: DjasgiError) -> str:
    """The message and the hint of `error` in one line."""
    return " ".join(f"{error.message.rstrip('.')}. {error.hint}".split())


def describe_status(status: int | None, *, oom_killed: bool = False) -> str:
    """How a process ended, by its exit code or minus its signal."""
    if status is None or status >= 0:
        return f"ended with exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if oom_killed and status == -signal.SIGKILL:
        return f"was killed by {name} from outside, probably out of memory"
    return f"was killed by {name}"


def spawn_failed(number: int, error: OSError) -> DjasgiError:
    """The error for people when a process could not be made."""
    if error.errno in (EMFILE, ENFILE):
        return descriptors_exhausted()
    name = f"Worker {number}" if number else "A process"
    return ProjectError(
        f"{name} cannot be started: {error.strerror or error}.",
        hint="Ask for fewer with --workers, or raise the limit of processes "
        "(ulimit -u) or of memory.",
    )


def explain(
    report: ReportFailure | ReloadFailed,
    *,
    child: Child | None,
    failure: OSError | DjasgiError | None,
    boot_timeout: float,
) -> DjasgiError:
    """The error for people behind a report of the machine.

    `child` is the process that it is about, `failure` what the supervisor itself met.
    """
    name = f"Worker {report.number}" if report.number else "The project"
    match report.cause:
        case Cause.FAILED if child and child.failure:
            return child.failure
        case Cause.LISTEN | Cause.REFUSED if isinstance(failure, DjasgiError):
            return failure
        case Cause.SPAWN | Cause.FAILED if isinstance(failure, OSError):
            return spawn_failed(report.number, failure)
        case Cause.TIMEOUT:
            what = "ready" if report.number else "loaded"
            return ProjectError(
                f"{name} was not {what} within {boot_timeout:g} s.",
                hint="Look for what waits while the project is imported or its "
                "lifespan starts: a database, another service. Or give it more time: "
                "--boot-timeout",
            )
    what = "ready" if report.number else "loaded"
    who = name if report.number else "The process that loads the project"
    return ProjectError(
        f"{who} {describe_status(report.status)} before it was {what}.",
        hint="Run it in this process to see more: --workers 0",
    )


def log_lost(lost: Lost, child: Child | None, *, oom_killed: bool) -> None:
    """Say that a worker is gone, how, and what follows."""
    cause, details = describe_status(lost.status, oom_killed=oom_killed), ""
    if child and child.failure:
        cause = f"failed: {child.failure.message.rstrip('.')}"
        details = child.failure.details.rstrip()
    if lost.delay is None:
        when = "is on its way"
    elif lost.delay:
        when = f"starts in {lost.delay:g} s"
    else:
        when = "starts now"
    text = "worker %d (pid %d) %s; the next one %s"
    if lost.crashes >= LOOPING:
        text = f"worker %d (pid %d) %s, {lost.crashes} times in a row; the next one %s"
    log(logging.ERROR, text, lost.number, lost.pid, cause, when, details=details)


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
    log(logging.WARNING, text, *arguments, details=details)


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
