"""What the supervisor says: how processes ended, and why something did not work."""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence
from errno import EMFILE, ENFILE
from time import monotonic
from typing import Any

from djasgi.errors import DjasgiError, ProjectError
from djasgi.supervisor.children import Child
from djasgi.supervisor.descriptors import descriptors_exhausted
from djasgi.supervisor.events import (
    Action,
    Cause,
    Lost,
    Overdue,
    ReloadFailed,
    ReportFailure,
    Retiring,
    Scaled,
    SpawnDelayed,
    Stuck,
)

logger = logging.getLogger("djasgi")

LOOPING = 3
"""So many crashes of one place without health between are called by their name."""

MOST_DETAILS = 4000
"""Characters of a traceback that are kept for `djasgi status`."""


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


def log_delayed(
    delayed: SpawnDelayed, failed: Child | None, error: OSError | None
) -> None:
    """Say that no worker can be made now, and why: code that has `failed`, or `error`."""
    reason: object = "it took too long"
    if failed is not None and failed.failure is not None:
        reason = failed.failure.message.rstrip(".")
    elif error is not None:
        reason = error.strerror or error
    text = "worker %d cannot be started: %s; tried again in %g s"
    logger.error(text, delayed.number, reason, delayed.delay)


def log_decision(action: Action, *, hang_timeout: float) -> None:
    """Say what was decided about a worker, if that is something to say."""
    match action:
        case Overdue(number, pid, booting):
            late = "was not ready" if booting else "did not stop"
            logger.error("worker %d (pid %d) %s in time: killed", number, pid, late)
        case Stuck(number, pid):
            text = "worker %d (pid %d) has not answered for %g s: killed"
            logger.error(text, number, pid, hang_timeout)
        case Retiring(number, pid, reason):
            text = "worker %d (pid %d) %s: its successor starts"
            logger.info(text, number, pid, reason)
        case Scaled(workers):
            logger.info("%d worker%s", workers, "" if workers == 1 else "s")


class Reloads:
    """What became of the last reload, for the log and for whoever asks later."""

    def __init__(self, began: float = 0.0, last: dict[str, Any] | None = None) -> None:
        self.began = began
        self.last = last or {}

    def begin(self) -> None:
        self.began = monotonic()

    def failed(self, error: DjasgiError) -> None:
        """It failed, because of `error`."""
        self._keep(error)
        log(
            logging.ERROR,
            "reload failed, the old code goes on serving: %s",
            sentence(error),
            details=error.details,
        )

    def succeeded(self, moved_to: Sequence[str]) -> None:
        """The new generation serves, at addresses that are named if they are others."""
        self._keep(None)
        logger.info("reloaded in %.2f s", monotonic() - self.began)
        if moved_to:
            logger.info("listening on %s", ", ".join(moved_to))

    def _keep(self, error: DjasgiError | None) -> None:
        import time

        self.last = {
            "number": self.last.get("number", 0) + 1,
            "ok": error is None,
            "at": time.time(),
            "seconds": round(monotonic() - self.began, 3),
            "reason": "" if error is None else str(error),
            "details": "" if error is None else error.details[-MOST_DETAILS:],
        }
