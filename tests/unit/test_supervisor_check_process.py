from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from djasgi.errors import ProjectError
from djasgi.supervisor import check_process, handover
from djasgi.supervisor.check_process import CheckProcess
from tests.support.process import until

STATE: dict[str, Any] = {
    "started": 1.5,
    "machine": {"generation": 1},
    "pipes": [],
    "board": 0,
    "children": [],
    "preloaders": [],
    "listeners": [],
    "services": {},
    "terminal": False,
    "reload_began": 2.5,
    "last_reload": {},
    "keep": {},
}


def checked(program: str, monkeypatch: pytest.MonkeyPatch) -> tuple[CheckProcess, int]:
    monkeypatch.setattr(handover, "command", lambda: [sys.executable, "-c", program])
    check = CheckProcess(STATE)
    status = os.waitstatus_to_exitcode(os.waitpid(check.pid, 0)[1])
    return check, status


TAKES_OVER = "from djasgi.supervisor.handover import inherited; inherited()\n"


@pytest.mark.parametrize(
    ("program", "message", "hint", "details"),
    [
        (
            "import sys; print('a warning'); sys.exit('Error: No host.\\nSee --help.')",
            "No host.",
            "See --help.",
            "a warning",
        ),
        (
            "print('Error: first.'); exit('Error: last.')",
            "last.",
            "",
            "Error: first.",
        ),
        ("import os; os._exit(7)", "The new djasgi ended with exit code 7.", "", ""),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL.", "", ""),
        ("1 / 0", "The new djasgi ended with exit code 1.", "", "ZeroDivisionError:"),
        ("pass", "does not come back to djasgi", "from a file", ""),
    ],
)
def test_a_check_says_why_it_failed(
    program: str,
    message: str,
    hint: str,
    details: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check, status = checked(program, monkeypatch)

    assert not check.succeeded(status)
    error = check.failure(status)
    check.close()
    assert isinstance(error, ProjectError)
    assert message in error.message
    assert hint in error.hint
    assert details in error.details


def test_a_check_that_has_read_the_state_succeeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    check, status = checked(TAKES_OVER, monkeypatch)

    assert check.read() is False
    assert check.succeeded(status)
    assert not check.succeeded(1)
    check.close()


def test_of_much_output_the_end_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    program = "print('x' * 200_000, flush=True); exit('Error: No host.')"
    monkeypatch.setattr(handover, "command", lambda: [sys.executable, "-c", program])
    check = CheckProcess(STATE)
    until(lambda: not check.read(), "it has said everything")
    os.waitpid(check.pid, 0)

    assert check.failure(1).message == "No host."
    assert len(check._output) <= check_process.MOST_OUTPUT
    check.close()


def test_a_check_can_be_ended_with_what_it_has_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = (
        "import os, time\nchild = os.fork()\n"
        "if child: print(child, flush=True)\ntime.sleep(3600)"
    )
    monkeypatch.setattr(handover, "command", lambda: [sys.executable, "-c", program])
    check = CheckProcess(STATE)
    until(
        lambda: bool(check.read() and check._output.endswith(b"\n")), "it has started"
    )
    child = int(check._output)

    check.kill()
    check.kill()

    check.close()
    until(lambda: not is_alive(child), "its child is gone as well")


def is_alive(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def test_a_check_that_cannot_be_started_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, "no")

    before = len([*Path("/proc/self/fd").iterdir()])
    monkeypatch.setattr(os, "fork", fork)

    with pytest.raises(BlockingIOError):
        CheckProcess(STATE)

    assert len([*Path("/proc/self/fd").iterdir()]) == before
