"""A worker that the kernel kills for lack of memory, in a cgroup with a limit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.support.cgroup import entering, limited_memory
from tests.support.process import until
from tests.support.server import Server, send

MIB = 2**20
LIMIT = 320 * MIB
OUT_OF_MEMORY = (
    r"ERROR +worker {number} \(pid {pid}\) was killed by SIGKILL from outside, "
    r"probably out of memory; the next one starts now$"
)
KILLED = r"ERROR +worker {number} \(pid {pid}\) was killed by SIGKILL; the next one"


@pytest.fixture
def cgroup() -> Iterator[Path]:
    with limited_memory(LIMIT) as made:
        if made is None:
            pytest.skip(
                "no cgroup with a memory limit can be made here: not root, "
                "no cgroup file system to write to, or none delegated"
            )
        yield made


def test_only_what_the_kernel_has_killed_is_called_out_of_memory(
    server: str, live: Path, cgroup: Path
) -> None:
    """Also after a reload, which counts anew; and another one serves meanwhile."""
    arguments = ("--server", server, "--workers", "2", "--no-access-log")
    with Server(live, *arguments, prefix=entering(cgroup)) as process:
        process.ready()
        assert {process.pid, *process.workers()} <= members(cgroup)
        for round_ in range(2):
            until(lambda: settled(process), "two serve")
            first = run_out_of_memory(process)
            said = process.wait_for(OUT_OF_MEMORY.format(number=r"\d", pid=first))
            until(lambda: settled(process), "its successor serves")
            assert process.seen()["pid"] != first

            other = process.workers()[0]
            os.kill(other, SIGKILL)
            process.wait_for(KILLED.format(number=r"\d", pid=other))
            until(lambda: settled(process), "its successor serves")
            assert len(process.matches("out of memory")) == round_ + 1, said
            if not round_:
                process.reload()
        assert process.stop() == 0


def settled(process: Server) -> bool:
    """Whether two serve, and nobody is on the way in or out."""
    states = [worker["state"] for worker in process.status()["workers"]]
    return states == ["ready", "ready"]


def run_out_of_memory(process: Server) -> int:
    """Have one worker ask for more than there is; its process."""
    before = {*process.workers()}
    with process.connect() as sock:
        send(sock, f"/grow/{2 * LIMIT // MIB}/")
        with suppress(ConnectionResetError):
            assert sock.recv(1) == b"", "it has died, and nobody can answer"
    until(lambda: bool(before - {*process.workers()}), "it is gone")
    (pid,) = before - {*process.workers()}
    return pid


def members(cgroup: Path) -> set[int]:
    return {int(word) for word in (cgroup / "cgroup.procs").read_text().split()}
