from __future__ import annotations

import errno
import logging

import pytest

from djasgi.errors import DjasgiError, ListenError, ProjectError
from djasgi.supervisor import report
from djasgi.supervisor.children import Child
from djasgi.supervisor.events import Cause, Lost, ReloadFailed, ReportFailure


@pytest.mark.parametrize(
    ("status", "oom", "text"),
    [
        (3, False, "ended with exit code 3"),
        (0, True, "ended with exit code 0"),
        (-9, False, "was killed by SIGKILL"),
        (-9, True, "was killed by SIGKILL from outside, probably out of memory"),
        (-15, True, "was killed by SIGTERM"),
        (-40, False, "was killed by signal 40"),
    ],
)
def test_the_end_of_a_process_is_said_in_words(
    status: int, oom: bool, text: str
) -> None:
    assert report.describe_status(status, oom_killed=oom) == text


def failing_child() -> Child:
    child = Child(2, 1, 99, None)
    child.failure = ProjectError("No shop.", hint="Mend.", details="line 1\n")
    return child


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (ReportFailure(Cause.FAILED, 2, 99), "No shop. Mend."),
        (ReloadFailed(Cause.FAILED, 2, 99), "No shop. Mend."),
        (
            ReportFailure(Cause.EXITED, 2, 99, -9),
            "Worker 2 was killed by SIGKILL before it was ready.",
        ),
        (
            ReportFailure(Cause.EXITED, 0, status=1),
            "The process that loads the project ended with exit code 1 before it",
        ),
        (ReportFailure(Cause.TIMEOUT, 2, 99), "Worker 2 was not ready within 60 s."),
        (ReloadFailed(Cause.TIMEOUT), "The project was not loaded within 60 s."),
        (ReloadFailed(Cause.LISTEN), "In use."),
        (ReloadFailed(Cause.REFUSED), "In use."),
    ],
)
def test_a_report_is_explained(action: ReportFailure | ReloadFailed, text: str) -> None:
    error = report.explain(
        action,
        child=failing_child(),
        failure=ListenError("In use.", hint="Stop it."),
        boot_timeout=60,
    )

    assert " ".join(str(error).split()).startswith(text)


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.EAGAIN, ProjectError), (errno.EMFILE, ListenError)]
)
def test_a_process_that_cannot_be_made_is_explained(
    number: int, kind: type[DjasgiError]
) -> None:
    error = report.explain(
        ReportFailure(Cause.SPAWN, 2),
        child=None,
        failure=OSError(number, "why"),
        boot_timeout=60,
    )

    assert type(error) is kind


@pytest.mark.parametrize(
    ("lost", "text"),
    [
        (Lost(2, 99, 7, 0.0), "ended with exit code 7; the next one starts now"),
        (
            Lost(2, 99, 7, 0.5, 2),
            "ended with exit code 7; the next one starts in 0.5 s",
        ),
        (Lost(2, 99, 7, None), "ended with exit code 7; the next one is on its way"),
        (
            Lost(2, 99, 7, 1.0, 3),
            "ended with exit code 7, 3 times in a row; the next one starts in 1 s",
        ),
    ],
)
def test_a_loss_says_how_and_what_follows(
    lost: Lost, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    report.log_lost(lost, None, oom_killed=False)

    assert caplog.messages == [f"worker 2 (pid 99) {text}"]


def test_a_loss_says_what_the_worker_said(caplog: pytest.LogCaptureFixture) -> None:
    report.log_lost(Lost(2, 99, 3, 0.0), failing_child(), oom_killed=False)

    assert "failed: No shop; the next one" in caplog.text
    assert caplog.records[0].stack_info == "line 1"


def test_details_are_not_made_where_they_are_not_logged() -> None:
    logger = logging.getLogger("djasgi")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        report.log(logging.ERROR, "nobody %s", "hears")
    finally:
        logger.setLevel(before)
