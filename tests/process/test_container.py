"""As process 1 of a container, and within what a container may use."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.process import until
from tests.support.server import Server

UNSHARE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def has_namespaces() -> bool:
    try:
        result = subprocess.run([*UNSHARE, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return False
    return result.returncode == 0


@pytest.mark.skipif(not has_namespaces(), reason="unshare needs its rights here")
def test_process_1_reaps_orphans_and_obeys(server: str, live: Path) -> None:
    """Whatever the project leaves behind, and over a reload."""
    with (live / "live" / "views.py").open("a") as views:
        views.write(
            "def orphan(request):\n"
            "    import subprocess\n"
            "    subprocess.run(['sh', '-c', 'sleep 0.2 &'], check=True)\n"
            "    return HttpResponse('left')\n"
        )
    with (live / "live" / "urls.py").open("a") as urls:
        urls.write("urlpatterns += [path('orphan/', views.orphan)]\n")
    arguments = ("--server", server, "--workers", "2")
    with Server(live, *arguments, prefix=UNSHARE) as process:
        process.ready()
        (first,) = children(process.pid)
        assert namespace_pid(first) == 1
        for _ in range(3):
            assert process.get("/orphan/")[1] == "left"
        os.kill(first, signal.SIGHUP)
        process.wait_for(r"reloaded in \d")
        assert process.get("/orphan/")[1] == "left"
        # Two workers and the process that has the code: no orphan, no zombie.
        until(lambda: len(children(first)) == 3, "the orphans were reaped")
        os.kill(first, signal.SIGTERM)
        assert process.wait() == 0
    assert len(process.matches("lifespan.shutdown")) == 4


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def namespace_pid(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("NSpid"))
    return int(line.split()[-1])


def test_as_many_workers_as_it_may_use(live: Path) -> None:
    """The arithmetic is printed, and again when a reload does it anew."""
    one = min(os.sched_getaffinity(0))
    prefix = ("taskset", "--cpu-list", str(one))
    with Server(live, "--workers", "auto", prefix=prefix) as process:
        process.ready()
        found = process.wait_for(r"INFO +workers: (.*)")
        assert "1 CPU" in found[1]
        assert len(process.workers()) == int(process.wait_for(r", (\d+) workers?")[1])
        assert process.stop() == 0
