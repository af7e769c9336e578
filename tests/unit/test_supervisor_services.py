"""What systemd is told, the pid file, and the counters of the kernel."""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from djasgi.errors import ListenError
from djasgi.supervisor import events
from djasgi.supervisor.events import Action, Cause
from djasgi.supervisor.master import Supervisor
from djasgi.supervisor.notify import Notify
from djasgi.supervisor.oom import RECENT, OutOfMemory
from djasgi.supervisor.pidfile import PidFile


class Manager:
    """The side of systemd."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1))
        self.socket.setblocking(False)

    def told(self) -> list[str]:
        try:
            return self.socket.recv(4096).decode().split("\n")
        except BlockingIOError:
            return []


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "n") if request.param == "path" else f"@djasgi{tmp_path}"


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    manager = Manager(address)
    yield manager
    manager.socket.close()


def supervisor_of(workers: int = 2, reason: str = "") -> Supervisor:
    places = dict.fromkeys(range(workers))
    stub = SimpleNamespace(
        machine=SimpleNamespace(
            pool=SimpleNamespace(serving=SimpleNamespace(places=places))
        ),
        reloads=SimpleNamespace(last={"reason": reason}),
    )
    return cast("Supervisor", stub)


@pytest.mark.parametrize(
    ("action", "lines"),
    [
        (
            events.Announce(),
            ["READY=1", f"MAINPID={os.getpid()}", "STATUS=serving with 2 workers"],
        ),
        (events.Reloaded(), ["READY=1", "STATUS=serving with 2 workers"]),
        (
            events.ReloadFailed(Cause.FAILED),
            ["READY=1", "STATUS=the last reload failed: No shop. Mend."],
        ),
        (events.NotReady(), ["STATUS=stopping soon"]),
        (events.CloseListeners(), ["STOPPING=1", "STATUS=stopping"]),
        (events.Spawn(1, 1), []),
    ],
)
def test_what_it_is_told(
    action: Action, lines: list[str], manager: Manager, address: str
) -> None:
    notify = Notify({"NOTIFY_SOCKET": address})

    notify.tell(supervisor_of(reason="No shop.\nMend."), action)

    assert manager.told() == lines


def test_a_reload_is_told_with_the_monotonic_clock(
    manager: Manager, address: str
) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    Notify({"NOTIFY_SOCKET": address}).tell(supervisor_of(), events.Check())
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000

    reloading, monotonic, _ = manager.told()
    assert reloading == "RELOADING=1"
    name, _, number = monotonic.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(number) <= after


def test_the_watchdog_hears_twice_in_its_time(manager: Manager, address: str) -> None:
    notify = Notify({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "3000000"})
    first = notify.deadline()
    assert first is not None

    notify.tick(supervisor_of(), first)
    assert manager.told() == ["WATCHDOG=1"]
    assert notify.deadline() == first + 1.5
    notify.tick(supervisor_of(), first + 1.4)
    assert manager.told() == []
    notify.tick(supervisor_of(), first + 1.5)
    assert manager.told() == ["WATCHDOG=1"]


@pytest.mark.parametrize(
    "environ",
    [
        {"WATCHDOG_USEC": ""},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "\N{SUPERSCRIPT TWO}"},
        {"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"},
    ],
    ids=["empty", "zero", "word", "superscript", "another process"],
)
def test_without_a_watchdog_of_ours_nothing_is_said(environ: dict[str, str]) -> None:
    notify = Notify({"NOTIFY_SOCKET": "/nonexistent", **environ})

    assert notify.deadline() is None
    notify.tick(supervisor_of(), 1e9)


def test_a_manager_that_is_not_there_changes_nothing(tmp_path: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "missing")}):
        notify = Notify(environ)
        notify.tell(supervisor_of(), events.Announce())
        notify.register(selectors.DefaultSelector())
        assert notify.hand_over() == ({}, [])
        notify.close()


def test_a_manager_that_does_not_read_does_not_hold_us_up(
    manager: Manager, address: str
) -> None:
    notify = Notify({"NOTIFY_SOCKET": address})
    for _ in range(2000):
        notify.send("WATCHDOG=1")

    assert manager.told() == ["WATCHDOG=1"]


def test_the_pid_file_says_who_runs_and_is_gone_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(path)

    assert path.read_text() == f"{os.getpid()}\n"
    assert [p.name for p in tmp_path.iterdir()] == ["pid"]
    assert file.hand_over() == ({"path": str(path)}, [])
    assert file.deadline() is None
    PidFile(path)  # the next supervisor, in this process
    file.close()
    assert not path.exists()
    file.close()


@pytest.mark.parametrize("left", ["", "word", "-1", "0", "99999999999", str(2**31 - 1)])
def test_a_pid_file_that_names_nobody_is_written_anew(
    left: str, tmp_path: Path
) -> None:
    path = tmp_path / "pid"
    path.write_text(left)

    PidFile(path).close()

    assert not path.exists()


def test_a_pid_file_of_one_that_runs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text(str(os.getppid()))

    with pytest.raises(ListenError, match=f"names process {os.getppid()}, which runs"):
        PidFile(path)
    assert path.read_text() == str(os.getppid())


@pytest.mark.parametrize("where", ["missing/pid", "directory"])
def test_a_pid_file_that_cannot_be_written_is_an_error_that_leaves_nothing(
    where: str, tmp_path: Path
) -> None:
    (tmp_path / "directory").mkdir()

    with pytest.raises(ListenError, match="cannot be written"):
        PidFile(tmp_path / where)
    assert [p.name for p in tmp_path.iterdir()] == ["directory"]


@pytest.mark.parametrize("text", [None, "1\n"], ids=["folder gone", "of another"])
def test_an_inherited_pid_file_is_never_an_error(
    text: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "run" / "pid"
    if text is not None:
        path.parent.mkdir()
        path.write_text(text)

    file = PidFile(path, inherited=True)

    assert len(caplog.messages) == 1
    assert str(path) in caplog.text
    assert file.hand_over() == ({"path": str(path)}, [])
    file.close()
    assert text is None or path.read_text() == text


def test_a_pid_file_that_another_one_took_is_left(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    file = PidFile(path)
    path.write_text("1\n")

    file.close()

    assert path.read_text() == "1\n"


def system(root: Path, version: int, count: int | str) -> None:
    files = {
        2: {
            "proc/self/cgroup": "0::/shop\n",
            "proc/self/mountinfo": "1 0 0:1 / /sys/fs/cgroup rw - cgroup2 c rw\n",
            "sys/fs/cgroup/shop/memory.events": f"oom 3\noom_kill {count}\n",
            "sys/fs/cgroup/memory.events": "oom_kill 77\n",
        },
        1: {
            "proc/self/cgroup": "4:memory:/shop\n",
            "proc/self/mountinfo": "1 0 0:1 / /cg rw - cgroup cgroup rw,memory\n",
            "cg/shop/memory.oom_control": f"under_oom 0\noom_kill {count}\n",
        },
        0: {"proc/self/cgroup": ""},
    }
    for name, text in files[version].items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("version", [1, 2])
def test_each_kill_of_the_kernel_explains_one_end(version: int, tmp_path: Path) -> None:
    system(tmp_path, version, 5)
    oom = OutOfMemory(tmp_path)
    oom.prepare()

    assert not oom.happened(1)
    system(tmp_path, version, 7)
    assert oom.happened(2)
    assert oom.happened(3)
    assert not oom.happened(4)


def test_a_kill_of_something_else_explains_nothing_for_long(tmp_path: Path) -> None:
    system(tmp_path, 2, 5)
    oom = OutOfMemory(tmp_path)
    oom.prepare()

    system(tmp_path, 2, 6)
    oom.look(100)
    oom.look(100 + RECENT + 1)
    assert not oom.happened(100 + RECENT + 2)
    system(tmp_path, 2, 7)
    oom.look(200)
    assert oom.happened(200 + RECENT)


@pytest.mark.parametrize(("version", "count"), [(0, 0), (2, "many")])
def test_counters_that_cannot_be_read_say_no(
    version: int, count: Any, tmp_path: Path
) -> None:
    system(tmp_path, version, count)
    oom = OutOfMemory(tmp_path)
    oom.prepare()

    assert not oom.happened(1)
