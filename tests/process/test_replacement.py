"""Workers that are replaced: why, with which words, and who serves meanwhile."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.support.probes import probes
from tests.support.process import until
from tests.support.server import Gate, Server, answer, copy_project, send


@probes("max_requests", "max_requests_jitter")
def test_a_worker_that_has_served_enough_is_replaced_first(
    server: str, live: Path
) -> None:
    """The successor is ready before the worker leaves, and no request is lost."""
    limits = ("--max-requests", "10", "--max-requests-jitter", "3")
    with Server(live, "--server", server, *limits) as process:
        process.ready()
        pids: list[int] = []
        while len({*pids}) < 3:
            pids.append(process.seen()["pid"])
        process.wait_for(
            r"INFO +worker 1 \(pid \d+\) has served \d+ requests: its successor starts",
            count=2,
        )
        old, new = [*dict.fromkeys(pids)][:2]
        assert pids.count(old) >= 10
        assert process.stop() == 0
    log = process.log
    assert log.index(f"startup in {new}") < log.index(f"shutdown in {old}")
    assert " ERROR " not in log


@probes("max_worker_memory", "max_worker_lifetime")
def test_big_and_old_workers_are_replaced(server: str, live: Path) -> None:
    """Each with its own reason in the log."""
    limits = ("--max-worker-memory", "160M", "--max-worker-lifetime", "3")
    with Server(live, "--server", server, *limits) as process:
        process.ready()
        pid = process.seen()["pid"]
        assert process.get("/grow/150/")[1] == "grown"
        process.wait_for(
            rf"worker 1 \(pid {pid}\) uses \d+ MiB of memory, more than 160 MiB: "
            "its successor starts"
        )
        until(lambda: pid not in process.workers(), "the big worker is gone")
        (young,) = process.workers()
        process.wait_for(rf"worker 1 \(pid {young}\) is older than 3 s: its successor")
        until(lambda: young not in process.workers(), "the old worker is gone")
        assert process.stop() == 0


@probes("hang_timeout")
def test_a_blocked_loop_is_shown_and_replaced(server: str, live: Path) -> None:
    """Another one, that is only stopped, is left alone."""
    arguments = ("--server", server, "--workers", "2", "--hang-timeout", "1")
    with Server(live, *arguments) as process:
        process.ready()
        with process.connect() as sock:
            send(sock, "/block/60000/")
            pid = int(process.wait_for(r"^blocked: (\d+)")[1])
            (other,) = {*process.workers()} - {pid}
            os.kill(other, signal.SIGSTOP)
            process.wait_for(rf"the stacks of worker \d \(pid {pid}\)")
            process.wait_for(r"live/views\.py.* in block")
            # Not how djasgi came to serve, nor threads of its own.
            assert not process.matches(r"supervisor/|runpy|click/")
            process.wait_for(
                rf"ERROR +worker \d \(pid {pid}\) has not answered for 1 s: killed"
            )
            process.wait_for("lifespan.startup", count=3)
            with suppress(ConnectionResetError):
                assert sock.recv(1) == b""
        assert process.seen()["pid"] not in (pid, other)
        os.kill(other, signal.SIGCONT)
        process.wait_for(rf"worker \d \(pid {pid}\) was killed by SIGKILL")
        assert other in process.workers()
        assert process.stop() == 0


def test_threads_that_are_all_stuck_are_shown_and_left_alone(
    server: str, tmp_path: Path
) -> None:
    """Once, with what they do; and once more when they were free in between."""
    copy = copy_project("probe", tmp_path)
    arguments = ("--threads", "2", "--hang-timeout", "1", "--no-access-log")
    stuck = (
        r"WARNING +all threads of worker 1 \(pid {}\) are stuck: in [12] s none of 2 has "
        r"finished a call, and 1 wait \(--threads\)$"
    )
    with Gate() as gate, ExitStack() as stack:
        process = stack.enter_context(
            Server(copy, "--server", server, *arguments, env=gate.variables)
        ).ready()
        (pid,) = process.workers()
        for count in (1, 2):
            with ExitStack() as clients:
                held = [clients.enter_context(process.connect()) for _ in range(3)]
                for sock in held:
                    send(sock, "/sync/")
                gate.arrived()
                gate.arrived()
                process.wait_for(stuck.format(pid), count=count)
                process.wait_for(r"probe/urls\.py.* in sync$", count=2 * count)
                assert not process.matches(r"supervisor/|runpy|click/")
                gate.open()
                gate.arrived()
                gate.open()
                assert [answer(sock)[1] for sock in held] == ["worked"] * 3
            assert len(process.matches("are stuck")) == count
        assert process.workers() == [pid]
        assert process.stop() == 0
        assert not process.matches(" ERROR |has not answered")


def test_a_crash_loop_is_called_one_and_slows_down(live: Path) -> None:
    """Whatever makes each new worker crash at once; the program goes on trying."""
    with Server(live) as process:
        process.ready()
        for count in (1, 2, 3):
            with process.connect() as sock:
                send(sock, "/crash/SIGABRT/")
                with suppress(ConnectionResetError):
                    assert sock.recv(1) == b""
            process.wait_for(r"worker 1 \(pid \d+\) was killed by SIGABRT", count=count)
        process.wait_for(
            r"ERROR +worker 1 \(pid \d+\) was killed by SIGABRT, 3 times in a row; "
            r"the next one starts in 1 s"
        )
        assert process.seen()["version"] == 1  # it waited in the queue
        assert process.stop() == 0
