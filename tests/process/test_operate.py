"""`djasgi status`, `reload` and `stop`: what they find, say and return."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from tests.support.command import djasgi
from tests.support.probes import probes
from tests.support.process import until
from tests.support.server import Server, copy_project


@probes("pid_file")
def test_an_instance_is_shown_reloaded_and_stopped(
    server: str, live: Path, tmp_path: Path
) -> None:
    file = tmp_path / "site.pid"
    arguments = ("--server", server, "--workers", "2", "--pid-file", str(file))
    with Server(live, *arguments) as process:
        port = process.ready().port
        assert file.read_text() == f"{process.pid}\n"
        process.seen()
        # The counters are written with each beat.
        until(lambda: _requests(process) == 1, "the request is counted")

        shown = djasgi("status", cwd=live, env={"COLUMNS": "80"})
        assert (shown.returncode, shown.stderr) == (0, "")
        lines = shown.stdout.splitlines()
        assert max(map(len, lines)) <= 80
        assert lines[0] == f"live   http://127.0.0.1:{port}"
        assert (
            f"serving for {lines[1].split()[2]} s, pid {process.pid}, {server}"
            in lines[1]
        )
        header = next(line for line in lines if line.startswith("worker"))
        assert header.split() == [
            *("worker", "pid", "generation", "state", "age", "requests", "memory")
        ]
        start = lines.index(header) + 1
        end = lines.index("", start)
        rows = [line.split() for line in lines[start:end]]
        assert lines[end + 1].split() == [
            *("worker", "active", "requests", "threads", "leases", "waiting"),
            "connections",
        ]
        assert [line.split()[0] for line in lines[end + 2 :]] == ["1", "2"]
        assert [row[1] for row in rows] == [str(pid) for pid in process.workers()]
        assert {row[3] for row in rows} == {"ready"}

        told = json.loads(djasgi("status", "--format", "json", cwd=live).stdout)
        (instance,) = told["instances"]
        assert instance["project"] == str(live)
        assert instance["last_reload"] is None
        assert all(w["memory"] > 2**20 for w in instance["workers"])

        result = djasgi("reload", "--pid", str(process.pid), cwd=tmp_path)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.endswith("generation 2\n")
        assert file.read_text() == f"{process.pid}\n"

        result = djasgi("stop", cwd=live)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == f"stopped pid {process.pid}\n"
        assert process.wait() == 0
    assert not file.exists()
    assert not process.control.exists()


def _requests(process: Server) -> int:
    return sum(worker["requests"] for worker in process.status()["workers"])


def test_nothing_running_is_said(tmp_path: Path, live: Path) -> None:
    """And what is left of one that was killed is nothing."""
    env = {"XDG_RUNTIME_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}
    with Server(live, env=env) as process:
        process.ready()
        process.signal(9)
        until(lambda: process.session() == [], "nobody is left")
    for command in ("status", "reload", "stop"):
        result = djasgi(command, cwd=live, env=env)
        assert result.returncode == 3
        assert result.stdout == ""
        assert result.stderr.splitlines() == [
            f"Error: No djasgi is running for {live}.",
            "Start it: djasgi serve",
        ]
    assert not process.control.exists()


def test_of_several_instances_one_has_to_be_named(tmp_path: Path, live: Path) -> None:
    env = {"XDG_RUNTIME_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}
    other = copy_project("live", tmp_path / "other")
    with (
        Server(live, env=env) as one,
        Server(live, env=env) as two,
        Server(other, env=env) as third,
    ):
        for process in (one, two, third):
            process.ready()
        result = djasgi("reload", cwd=live, env=env)
        assert result.returncode == 2
        found = re.search(
            r"2 instances are running: process (\d+), (\d+)\.\n"
            r"Name one:  djasgi reload --pid \1  or all:  djasgi reload --all",
            result.stderr,
        )
        assert found is not None, result.stderr
        assert {int(pid) for pid in found.groups()} == {one.pid, two.pid}

        shown = djasgi("status", cwd=live, env=env).stdout
        assert [p.pid for p in (one, two, third) if f"pid {p.pid}," in shown] == [
            one.pid,
            two.pid,
        ]
        everywhere = djasgi("status", "--all", cwd=live, env=env).stdout
        assert f"pid {third.pid}," in everywhere
        outside = djasgi("status", "--pid", "1", cwd=live, env=env)
        assert outside.returncode == 3
        assert "with the process id 1" in outside.stderr

        result = djasgi("stop", "--all", cwd=live, env=env)
        assert result.returncode == 0
        assert [p.wait() for p in (one, two, third)] == [0, 0, 0]


def test_without_a_place_for_the_socket_it_serves(live: Path, tmp_path: Path) -> None:
    """One line, and no more than that."""
    (tmp_path / "djasgi").write_text("in the way")
    with Server(live, env={"XDG_RUNTIME_DIR": str(tmp_path)}) as process:
        process.ready()
        process.wait_for("INFO +no control socket: ")
        assert process.get()[0].status == 200
        assert process.stop() == 0


def test_the_pid_file_of_another_is_not_touched(live: Path, tmp_path: Path) -> None:
    file = tmp_path / "site.pid"
    file.write_text(f"{os.getpid()}\n")
    result = djasgi("serve", "--port", "0", "--pid-file", str(file), cwd=live)
    assert result.returncode == 4
    assert f"{file} names process {os.getpid()}, which runs." in result.stderr
    assert file.read_text() == f"{os.getpid()}\n"
