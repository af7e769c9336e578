"""After many reloads and replacements the supervisor is what it was.

`make soak` does it as often as SOAK_TIMES says, on every server.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from djasgi.options import SERVERS
from tests.support.process import until
from tests.support.server import Server

TIMES = int(os.environ.get("SOAK_TIMES", "3"))
SUCCESSOR = r"its successor starts$"
NOISE = 2 * 2**20
"""Bytes that the memory of two fresh interpreters may differ by."""


@pytest.mark.timeout(90 + 12 * TIMES)
@pytest.mark.parametrize("server", SERVERS if TIMES > 3 else SERVERS[:1])
def test_nothing_is_left_behind(server: str, live: Path, tmp_path: Path) -> None:
    """Descriptors, children, memory and files, at first, later and at the end."""
    place = tmp_path / "temporary"
    place.mkdir()
    file = place / "site.pid"
    env = {"TMPDIR": str(place), "XDG_RUNTIME_DIR": str(place)}
    arguments = ("--workers", "2", "--max-requests", "1", "--no-access-log")
    options = ("--server", server, "--pid-file", str(file))
    with Server(live, *options, *arguments, env=env) as process:
        process.ready()
        process.reload()
        settle(process)
        first = Account(process.pid, place)

        for number in range(TIMES):
            process.reload(count=2 + number)
        reloaded = account(process, place, first)

        replaced = TIMES + len(process.matches(SUCCESSOR))

        def enough() -> bool:
            process.seen()
            return len(process.matches(SUCCESSOR)) >= replaced

        until(enough, f"{TIMES} more\n{process.log}", 10 * TIMES + 30)
        last = account(process, place, first)
        print(f"\n{server}, {TIMES} reloads, {TIMES} replacements")
        for name, found in (("first", first), ("later", reloaded), ("last", last)):
            print(f"{name}: {found}")
        assert process.stop() == 0
    for found in (reloaded, last):
        assert found.descriptors == first.descriptors
        assert found.children == first.children
        assert found.files == first.files
        assert found.memory < first.memory + NOISE
    assert first.children.keys() <= {"S", "R", "D"}
    assert sorted(p.name for p in place.iterdir()) == ["djasgi"]
    assert [*(place / "djasgi").iterdir()] == []


def settle(process: Server) -> None:
    """Until nobody is on the way out, and no successor on its way."""

    def quiet() -> bool:
        status = process.status()
        states = [worker["state"] for worker in status["workers"]]
        return status["state"] == "serving" and states == ["ready", "ready"]

    until(quiet, f"two workers\n{process.log}")


def account(process: Server, place: Path, first: Account) -> Account:
    """What it has when it has no more than at first, or after a while."""
    found: list[Account] = []

    def same() -> bool:
        found.append(Account(process.pid, place))
        # The kernel's list of children misses some while others end (proc(5)).
        return (found[-1].descriptors, found[-1].children) == (
            first.descriptors,
            first.children,
        )

    with suppress(AssertionError):
        until(same, "the same descriptors and children", 10)
    return found[-1]


class Account:
    """What a supervisor has."""

    def __init__(self, pid: int, place: Path) -> None:
        self.descriptors = Counter(_kinds(pid))
        status = Path(f"/proc/{pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines())
        self.memory = int(fields["VmRSS"].split()[0]) * 1024
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        self.children = Counter(
            "S" if _state(int(word)) in "RD" else _state(int(word))
            for word in text.split()
        )
        self.files = sorted(
            str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()
        )

    def __str__(self) -> str:
        return (
            f"{self.descriptors.total()} descriptors, {self.children.total()} children, "
            f"{self.memory / 2**20:.1f} MiB, files {self.files}"
        )


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _kinds(pid: int) -> list[str]:
    """What each descriptor is open on, without the numbers that make it one."""
    found = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found.append(str(descriptor.readlink()).partition(":")[0])
    return found
