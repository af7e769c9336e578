"""A reload onto what does not work: the old code serves on, and everybody is told why."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from djasgi.options import SERVERS
from tests.support.command import djasgi
from tests.support.probes import probes
from tests.support.process import until
from tests.support.server import Server, copy_project

HANG = "import threading\nthreading.Event().wait()\n"
CHECK = (
    "from django.core import checks\n"
    "@checks.register()\n"
    "def never(app_configs, **kwargs):\n"
    "    return [checks.Error('no such thing', hint='make one', id='live.E001')]\n"
)
LIFESPAN = (
    "async def lifespan(receive, send):\n"
    "    await receive()\n"
    "    message = {'type': 'lifespan.startup.failed', 'message': 'no database'}\n"
    "    await send(message)\n"
)


def append(file: Path, text: str) -> None:
    file.write_text(f"{file.read_text()}\n{text}")


def test_a_reload_onto_broken_code_changes_nothing(server: str, live: Path) -> None:
    """One failure after another, over one and the same worker."""
    version, settings = live / "live" / "version.py", live / "live" / "settings.py"
    asgi, options = live / "live" / "asgi.py", live / "pyproject.toml"
    failures = [
        (version, "NUMBER = ", "SyntaxError: invalid syntax"),
        (asgi, LIFESPAN, "no database"),
    ]
    if server == SERVERS[0]:  # what comes before a server is there
        failures += [
            (settings, "1 / 0", "ZeroDivisionError"),
            (settings, CHECK, "live.E001"),
            (options, "[tool.djasgi]\nworker = 2\n", "Did you mean 'workers'"),
        ]
    options.write_text("")
    with Server(live, "--server", server) as process:
        (pid,) = process.ready().workers()
        for number, (file, broken, reason) in enumerate(failures, 1):
            good = file.read_text()
            append(file, broken)
            process.signal(signal.SIGHUP)
            told = process.wait_for(
                r"ERROR +reload failed, the old code goes on serving: (.*)",
                count=number,
            )
            file.write_text(good)
            last = process.status()["last_reload"]
            assert not last["ok"]
            assert last["number"] == number
            assert reason in last["reason"] + last["details"]
            assert last["reason"].partition("\n")[0].rstrip(".") in told[1]
            assert any(reason in line for line in process.lines)
            assert process.seen()["pid"] == pid
        assert process.status()["generation"] == 1
        until(lambda: process.workers() == [pid], "only the old worker is there")
        # And then it works again.
        version.write_text("NUMBER = 2")
        process.reload()
        until(lambda: pid not in process.workers(), "the old worker is gone")
        assert process.seen()["version"] == 2
        assert process.stop() == 0


@probes("boot_timeout")
@pytest.mark.parametrize(
    ("server", "preload"),
    [*((server, "auto") for server in SERVERS), ("uvicorn", "off")],
)
def test_a_hanging_import_is_given_up(server: str, live: Path, preload: str) -> None:
    """Past the boot timeout; and `djasgi reload` waits for the outcome."""
    arguments = ("--server", server, "--boot-timeout", "5", "--preload", preload)
    with Server(live, *arguments) as process:
        (pid,) = process.ready().workers()
        (live / "live" / "version.py").write_text(HANG)
        result = djasgi("reload", cwd=live)
        assert result.returncode == 3
        assert "was not loaded within 5 s" in result.stderr
        assert "--boot-timeout" in result.stderr
        process.wait_for("reload failed.*was not loaded within 5 s")
        assert process.workers() == [pid]
        shown = djasgi("status", cwd=live).stdout
        assert "failed, the old code serves" in shown
        assert "was not loaded within 5 s" in shown
        assert process.stop() == 0


def test_a_reload_that_cannot_start(live: Path) -> None:
    """The new release is nowhere: the working directory is gone."""
    with Server(live) as process:
        (pid,) = process.ready().workers()
        moved = live.with_name("moved")
        live.rename(moved)
        process.signal(signal.SIGHUP)
        process.wait_for("reload failed, the old code goes on serving: .*directory")
        assert process.workers() == [pid]
        moved.rename(live)
        process.reload()
        assert process.stop() == 0


def test_the_address_of_another_is_not_taken(live: Path, tmp_path: Path) -> None:
    """A new port that is in use is found out before anything is replaced."""
    other = copy_project("live", tmp_path / "other")
    options = live / "pyproject.toml"
    options.write_text("[tool.djasgi]\nport = 0\n")
    with Server(other) as occupant, Server(live, address=()) as process:
        port = occupant.ready().port
        (pid,) = process.ready().workers()
        options.write_text(f"[tool.djasgi]\nport = {port}\n")
        process.signal(signal.SIGHUP)
        process.wait_for(
            rf"reload failed.*127\.0\.0\.1:{port} is in use by \S+ \(pid {os.getpgid(occupant.pid)}\)"
        )
        assert process.workers() == [pid]
        assert occupant.stop() == 0
        assert process.stop() == 0


def test_a_pid_file_whose_folder_is_gone_is_no_reason_to_end(
    server: str, live: Path, tmp_path: Path
) -> None:
    """Nor not to reload; and nor when the reload fails for something else."""
    folder = tmp_path / "run"
    folder.mkdir()
    options = live / "pyproject.toml"
    options.write_text(f'[tool.djasgi]\npid-file = "{folder}/site.pid"\n')
    with Server(live, "--server", server) as process:
        process.ready()
        (folder / "site.pid").unlink()
        folder.rmdir()
        process.reload()
        process.wait_for(
            rf"WARNING +The pid file {folder}/site\.pid cannot be written: No such file"
        )
        until(lambda: len(process.workers()) == 1, "the old worker is gone")
        (pid,) = process.workers()

        # Another place, which is not there either.
        options.write_text(f'[tool.djasgi]\npid-file = "{tmp_path}/other/site.pid"\n')
        process.signal(signal.SIGHUP)
        process.wait_for(
            rf"reload failed, the old code goes on serving: The pid file {tmp_path}/other"
        )
        assert process.workers() == [pid]
        assert process.seen()["pid"] == pid

        folder.mkdir()
        options.write_text(f'[tool.djasgi]\npid-file = "{tmp_path}/new.pid"\n')
        process.reload(count=2)
        assert (tmp_path / "new.pid").read_text() == f"{process.pid}\n"
        assert [*folder.iterdir()] == []
        assert process.stop() == 0
    assert not (tmp_path / "new.pid").exists()


SUCCESSOR = """
import os, sys
from djasgi import cli, run
from djasgi.errors import ListenError
from djasgi.supervisor import control, handover, oom

def failing(error):
    def fail(*arguments, **keywords):
        raise error
    return fail

there = os.environ.get(handover.VARIABLE, handover.CHECKING)
if not there.startswith(handover.CHECKING):
    {failing}
cli.main(prog_name="djasgi")
"""
"""The command, with something that fails between the check and the end of the exec."""


@contextmanager
def failing_successor(live: Path, failing: str) -> Iterator[Server]:
    code = SUCCESSOR.format(failing=failing)
    command = (sys.executable, "-c", code)
    with Server(live, "--workers", "2", address=(), command=command) as process:
        yield process.ready()


@pytest.mark.parametrize(
    ("failing", "reason"),
    [
        (
            "run._open_listeners = failing(ListenError('It is taken.', hint='So.'))",
            "It is taken",
        ),
        (
            "run.vet = failing(PermissionError(13, 'Permission denied', 'site.conf'))",
            "PermissionError: .*site.conf",
        ),
        ("run._load_tls = failing(KeyError('odd'))", "KeyError: 'odd'"),
    ],
    ids=["address", "permission", "bug"],
)
def test_what_fails_only_after_the_exec_changes_nothing(
    live: Path, tmp_path: Path, failing: str, reason: str
) -> None:
    """Not even the pid file, of which the new configuration has another."""
    options = live / "pyproject.toml"
    text = f'[tool.djasgi]\nport = 0\npid-file = "{tmp_path}/%s.pid"\n'
    options.write_text(text % "old")
    with failing_successor(live, failing) as process:
        pids = process.workers()
        options.write_text(text % "new")
        for count in (1, 2):
            process.signal(signal.SIGHUP)
            process.wait_for(
                f"ERROR +reload failed, the old code goes on serving: .*{reason}",
                count=count,
            )
            assert process.seen()["pid"] in pids
            assert process.workers() == pids
            assert (tmp_path / "old.pid").read_text() == f"{process.pid}\n"
            assert not (tmp_path / "new.pid").exists()
        assert process.stop() == 0
    assert not (tmp_path / "old.pid").exists()


@pytest.mark.parametrize(
    "service", ["control.Control.__init__", "oom.OutOfMemory.prepare"]
)
def test_a_service_that_fails_after_the_exec_is_done_without(
    live: Path, service: str
) -> None:
    """The workers serve, the reload succeeds, and the log says what there is not."""
    options = live / "pyproject.toml"
    options.write_text("[tool.djasgi]\nport = 0\n")
    failing = f"{service} = failing(RuntimeError('odd'))"
    with failing_successor(live, failing) as process:
        (live / "live" / "version.py").write_text("NUMBER = 2")
        process.reload()
        process.wait_for(
            "ERROR +serving goes on without something of djasgi's own: .*RuntimeError: odd"
        )
        until(lambda: process.seen()["version"] == 2, "the new code serves")
        os.kill(process.seen()["pid"], signal.SIGKILL)
        process.wait_for("the next one starts now")
        process.wait_for("lifespan.startup", count=5)
        process.reload(count=2)
        assert process.stop() == 0
