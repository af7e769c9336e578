"""The supervisor over real processes, with servers of a few lines and no Django."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import Process, until
from tests.support.stub import (
    IN_PROCESS,
    PROLOGUE,
    ROOT,
    SUPERVISED,
    Run,
    ask,
    connect,
    port_of,
    starting,
    worker_pid,
)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with starting(tmp_path) as start:
        yield start


def test_all_workers_are_ready_before_the_announcement_and_drained_before_the_end(
    run: Run,
) -> None:
    process = run()
    process.wait_for(r"^ready http://127\.0\.0\.1:\d+ {'loop': 'of __main__'}$")

    assert ask(process).startswith(b"worker ")
    assert process.stop() == 0
    kinds = [re.sub(r"[\d].*", "", line) for line in process.lines]
    assert kinds == [
        "bound ",
        "worker ",
        "worker ",
        "ready http://",
        "stopping: SIGTERM",
        "worker ",
        "worker ",
    ]


def test_nothing_listens_before_a_worker_is_ready(run: Run, tmp_path: Path) -> None:
    go = tmp_path / "go"
    process = run(
        f"""
        def wait():
            while not os.path.exists({str(go)!r}):
                time.sleep(0.01)
        def serve(number, channel):
            answering(number, channel, before_ready=wait)
        """
    )
    with pytest.raises(ConnectionRefusedError):
        connect(process)

    go.touch()

    process.wait_for("^ready")
    assert ask(process).startswith(b"worker ")
    assert process.stop() == 0


def test_a_request_in_flight_is_answered_during_the_stop(run: Run) -> None:
    process = run()
    process.wait_for("^ready")
    with connect(process) as client:
        client.sendall(b"slow\n")
        process.wait_for("slow request")

        process.signal(signal.SIGTERM)

        assert client.recv(100).startswith(b"worker ")
    assert process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_every_stop_signal_ends_with_exit_code_0(
    run: Run, number: signal.Signals
) -> None:
    process = run()
    process.wait_for("^ready")

    assert process.stop(number) == 0
    process.wait_for(rf"^stopping.*: {number.name}$")


def test_ctrl_c_reaches_the_whole_group_and_workers_still_drain(run: Run) -> None:
    process = run()
    process.wait_for("^ready")
    with connect(process) as client:
        client.sendall(b"slow\n")
        process.wait_for("slow request")

        process.signal_group(signal.SIGINT)

        assert client.recv(100).startswith(b"worker ")
    assert process.wait() == 0
    assert len(process.matches("drained")) == 2


def test_a_second_ctrl_c_ends_at_once(run: Run) -> None:
    process = run()
    process.wait_for("^ready")
    with connect(process) as client:
        client.sendall(b"block\n")
        process.wait_for("blocking")
        process.signal_group(signal.SIGINT)
        process.wait_for("^stopping: SIGINT")

        process.signal_group(signal.SIGINT)

        assert process.wait() == 0
    process.wait_for("^stopping at once: SIGINT")


def test_a_worker_that_does_not_stop_is_killed_at_the_deadline(run: Run) -> None:
    process = run(
        """
        import djasgi.supervisor.pool
        djasgi.supervisor.pool.KILL_GRACE = 0.1
        options = dict(workers=1, graceful_timeout=0.1)
        """
    )
    process.wait_for("^ready")
    with connect(process) as client:
        client.sendall(b"block\n")
        process.wait_for("blocking")

        assert process.stop() == 0
    process.wait_for(r"^worker 1 \(pid \d+\) did not stop in time: killed")


def test_a_killed_worker_is_replaced_at_once_and_the_log_says_by_what(run: Run) -> None:
    process = run()
    process.wait_for("^ready")

    os.kill(worker_pid(process, 2), signal.SIGKILL)

    worker_pid(process, 2, count=2)
    process.wait_for(
        r"^worker 2 \(pid \d+\) was killed by SIGKILL; the next one starts now"
    )
    assert process.stop() == 0


def test_a_worker_that_keeps_crashing_is_restarted_later_and_later(run: Run) -> None:
    process = run("options = dict(workers=1, graceful_timeout=30)")
    process.wait_for("^ready")
    for crashes in range(1, 4):
        worker_pid(process, 1, count=crashes)
        ask(process, b"crash\n")

    process.wait_for("ended with exit code 7; the next one starts now")
    process.wait_for(r"ended with exit code 7; the next one starts in 0\.5 s")
    process.wait_for(
        "ended with exit code 7, 3 times in a row; the next one starts in 1 s"
    )
    assert process.stop() == 0


def test_a_replacement_that_does_not_boot_is_logged_and_does_not_end_the_program(
    run: Run, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    process = run(
        f"""
        def serve(number, channel):
            if os.path.exists({str(broken)!r}):
                raise ProjectError("No module shop.", hint="Make it.", details="line 1")
            answering(number, channel)
        """
    )
    process.wait_for("^ready")
    broken.touch()
    os.kill(worker_pid(process, 1), signal.SIGKILL)
    process.wait_for(r"failed: No module shop; the next one starts in 0\.5 s$")
    process.wait_for("^line 1$")
    assert ask(process) == b"worker 2\n"

    broken.unlink()

    worker_pid(process, 1, count=2)
    assert process.stop() == 0


@pytest.mark.parametrize(
    ("statement", "code", "text"),
    [
        ("raise ProjectError('No shop.', hint='Mend.')", 3, "No shop. | Mend."),
        ("raise UsageError('No env.', hint='Mend.')", 2, "No env. | Mend."),
        ("raise ListenError('In use.', hint='Mend.')", 4, "In use. | Mend."),
        ("channel.failed(ProjectError('Told.', hint='So.'))", 3, "Told. | So."),
        ("1 / 0", 3, "ZeroDivisionError"),
        ("sys.exit(0)", 3, "SystemExit"),
        ("channel.failed(ProjectError('1.', hint='')); 1 / 0", 3, "1."),
        ("raise ProjectError('Big.', hint='', details='x' * 1_000_000)", 3, "Big."),
        ("os._exit(5)", 3, "ended with exit code 5 before it was ready"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 3, "was killed by SIGKILL before"),
        ("return", 3, "ended with exit code 0 before it was ready"),
    ],
)
def test_a_worker_that_does_not_boot_ends_the_program_with_one_report(
    run: Run, statement: str, code: int, text: str
) -> None:
    process = run(f"def serve(number, channel):\n    {statement}\n")

    assert process.wait() == code
    assert [text in line for line in process.lines if "failure" in line] == [True]


def test_one_worker_that_does_not_boot_stops_the_others(run: Run) -> None:
    process = run(
        """
        def serve(number, channel):
            if number == 2:
                raise ProjectError("Not me.", hint="Never.")
            answering(number, channel)
        """
    )

    assert process.wait() == 3
    process.wait_for("failure: Not me")


def test_a_worker_that_is_not_ready_in_time_is_killed_and_the_program_ends(
    run: Run,
) -> None:
    process = run(
        """
        options = dict(workers=2, graceful_timeout=30, boot_timeout=0.2)
        def serve(number, channel):
            time.sleep(3600)
        """
    )

    assert process.wait() == 3
    process.wait_for(r"failure: Worker 1 was not ready within 0\.2 s\.")


def test_a_replacement_that_is_not_ready_in_time_is_killed_and_tried_again(
    run: Run, tmp_path: Path
) -> None:
    slow = tmp_path / "slow"
    process = run(
        f"""
        options = dict(workers=1, graceful_timeout=30, boot_timeout=5)
        def serve(number, channel):
            if os.path.exists({str(slow)!r}):
                os.unlink({str(slow)!r})
                time.sleep(3600)
            answering(number, channel)
        """
    )
    process.wait_for("^ready")
    slow.touch()

    os.kill(worker_pid(process, 1), signal.SIGKILL)

    process.wait_for(r"worker 1 \(pid \d+\) was not ready in time: killed")
    worker_pid(process, 1, count=2)
    assert process.stop() == 0


def test_a_port_that_another_program_took_meanwhile_ends_the_program(run: Run) -> None:
    process = run(
        """
        def serve(number, channel):
            rival = socket.socket()
            rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            rival.bind(listeners.sockets[0].getsockname())
            rival.listen()
            channel.ready()
            while True:
                time.sleep(3600)
        import socket
        options = dict(workers=1, graceful_timeout=30)
        """
    )

    assert process.wait() == 4
    port = port_of(process)
    process.wait_for(rf"failure: 127\.0\.0\.1:{port} is in use by python")


def test_there_is_a_hard_limit_of_live_workers(run: Run) -> None:
    process = run(
        """
        from djasgi.supervisor.pool import Pool
        Pool.most_workers = 1
        Pool.is_full = lambda self: False
        """
    )

    process.wait_for("worker 2 cannot be started: .*too many workers are alive")
    assert process.stop() == 0


@pytest.mark.parametrize("importing", ["time.sleep(3600)", "while True: pass"])
def test_a_stop_during_the_import_ends_at_once(run: Run, importing: str) -> None:
    process = run(
        f"""
        def serve(number, channel):
            say("importing")
            {importing}
        """
    )
    process.wait_for("importing", count=2)

    assert process.stop() == 0
    assert not process.matches("failure|killed")


@pytest.mark.parametrize(
    "busy",
    [
        "time.sleep(3600)",
        "while True: pass",
        "answering(number, channel)",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); answering(number, channel)",
    ],
)
def test_no_worker_outlives_a_killed_supervisor(run: Run, busy: str) -> None:
    process = run(
        f"""
        def serve(number, channel):
            say("here")
            {busy}
        """
    )
    process.wait_for("here", count=2)
    if "answering" in busy:
        process.wait_for("^ready")

    process.signal(signal.SIGKILL)

    until(lambda: not process.session(), "no process of the session is left")


def test_a_blocked_worker_outlives_a_killed_supervisor_only_until_its_deadline(
    run: Run,
) -> None:
    process = run(
        """
        import djasgi.supervisor.worker
        djasgi.supervisor.worker.KILL_GRACE = 0.1
        options = dict(workers=1, graceful_timeout=0.1)
        """
    )
    process.wait_for("^ready")
    with connect(process) as client:
        client.sendall(b"block\n")
        process.wait_for("blocking")

        process.signal(signal.SIGKILL)

        until(lambda: not process.session(), "no process of the session is left")


def test_a_signal_without_a_meaning_says_so_and_changes_nothing(run: Run) -> None:
    process = run()
    process.wait_for("^ready")
    worker = worker_pid(process, 1)

    process.signal_group(signal.SIGUSR1)
    process.wait_for("^SIGUSR1 does nothing")

    assert worker in process.session()
    assert process.stop() == 0
    assert not process.matches("the next one starts")


def test_sigusr2_writes_the_stacks_of_all_threads_of_all_workers(run: Run) -> None:
    process = run()
    process.wait_for("^ready")
    with connect(process) as client:
        client.sendall(b"block\n")
        process.wait_for("blocking")

        process.signal(signal.SIGUSR2)

        for number in (1, 2):
            process.wait_for(rf"^the stacks of worker {number} \(pid \d+\)")
        process.wait_for(r'File ".*stub.py", line \d+ in answer$')
        process.wait_for("^Current thread 0x", count=2)
        process.signal(signal.SIGQUIT)
        assert process.wait() == 0


def test_a_storm_of_signals_ends_once_and_with_exit_code_0(run: Run) -> None:
    process = run()
    process.wait_for("^ready")

    for _ in range(10):
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP):
            process.signal_group(number)

    assert process.wait() == 0
    assert len(process.matches("^stopping")) == 1


def test_under_nohup_a_hangup_is_ignored(run: Run) -> None:
    process = run(preexec=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.wait_for("^ready")

    process.signal_group(signal.SIGHUP)

    assert ask(process).startswith(b"worker ")
    assert process.stop() == 0
    assert not process.matches("SIGHUP")


def test_an_inherited_ignored_sigchld_does_not_hide_how_workers_end(run: Run) -> None:
    process = run(preexec=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    process.wait_for("^ready")

    os.kill(worker_pid(process, 1), signal.SIGKILL)

    process.wait_for("was killed by SIGKILL")
    assert process.stop() == 0


def test_exit_handlers_and_threads_of_a_worker_finish_and_the_parents_run_once(
    run: Run,
) -> None:
    process = run(
        """
        options = dict(workers=1, graceful_timeout=30)
        parent = os.getpid()
        atexit.register(lambda: say(f"parent's handler in {os.getpid() == parent}"))
        def serve(number, channel):
            atexit.register(lambda: say("worker's handler"))
            threading.Thread(target=lambda: (time.sleep(0.2), say("thread"))).start()
            sys.stdout.write("not flushed ")
            answering(number, channel)
        """
    )
    process.wait_for("^ready")

    assert process.stop() == 0
    assert len(process.matches("worker's handler")) == 1
    assert len(process.matches("^thread$")) == 1
    assert len(process.matches("parent's handler")) == 1
    process.wait_for("parent's handler in True")


def test_a_worker_ends_when_what_runs_at_its_end_raises(run: Run) -> None:
    process = run(
        """
        def serve(number, channel):
            threading._register_atexit(lambda: 1 / 0)
            answering(number, channel)
        """
    )
    process.wait_for("^ready")

    assert process.stop() == 0
    assert len(process.matches("ZeroDivisionError")) == 2


NEW_PID_NAMESPACE = (
    "unshare",
    "--user",
    "--map-root-user",
    "--pid",
    "--fork",
    "--mount-proc",
)


def namespaces_are_allowed() -> bool:
    try:
        return subprocess.run([*NEW_PID_NAMESPACE, "true"], check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not namespaces_are_allowed(), reason="no process namespaces here")
def test_as_process_1_it_reaps_the_orphans_of_the_project(
    run: Run,
) -> None:
    process = run(
        """
        options = dict(workers=1, graceful_timeout=30)
        def serve(number, channel):
            read, write = os.pipe()
            if os.fork() == 0:
                orphan = os.fork()
                if orphan:
                    os.write(write, b"%d" % orphan)
                os._exit(0)
            os.wait()
            orphan = int(os.read(read, 20))
            while os.path.exists(f"/proc/{orphan}"):
                time.sleep(0.01)
            say(f"reaped by {os.getppid()}")
            answering(number, channel, before_ready=lambda: os.kill(1, signal.SIGTERM))
        """,
        prefix=NEW_PID_NAMESPACE,
    )

    assert process.wait() == 0
    process.wait_for("reaped by 1")


def test_processes_of_the_project_do_not_inherit_ignored_signals(run: Run) -> None:
    process = run(
        """
        import subprocess
        options = dict(workers=1, graceful_timeout=30)
        def serve(number, channel):
            code = "import signal; print(signal.getsignal(signal.SIGINT).__name__)"
            subprocess.run([sys.executable, "-c", code], check=True)
            answering(number, channel)
        """
    )

    process.wait_for("^default_int_handler$")
    process.wait_for("^ready")
    assert process.stop() == 0


def test_a_worker_holds_no_descriptor_of_the_supervisor_but_its_own_two(
    run: Run,
) -> None:
    process = run(
        """
        def serve(number, channel):
            channel._tell({"type": "of a later version"})
            pipes = [
                name for name in os.listdir("/dev/fd")
                if int(name) > 2 and os.path.exists(f"/dev/fd/{name}")
                and "pipe" in os.path.realpath(f"/dev/fd/{name}")
            ]
            say(f"{len(pipes)} pipes")
            answering(number, channel)
        """
    )
    process.wait_for("^ready")

    assert process.stop() == 0
    assert {m[1] for m in process.matches(r"^(\d+) pipes$")} == {"2"}


def test_an_error_in_the_supervisor_leaves_no_worker(run: Run) -> None:
    process = run(
        """
        def on_ready(facts):
            raise RuntimeError("boom")
        """
    )

    assert process.wait() == 1
    assert process.session() == []
    process.wait_for("RuntimeError: boom")


@pytest.mark.parametrize("main", [SUPERVISED, IN_PROCESS])
@pytest.mark.parametrize("limit", range(4, 20))
def test_too_few_descriptors_are_one_clear_error(
    run: Run, limit: int, main: str
) -> None:
    process = run(
        f"""
        import resource
        def start(*args, **kwargs):
            resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, 4096))
            return bound(*args, **kwargs)
        bound, open_listeners = open_listeners, start
        options = dict(workers=4, graceful_timeout=30)
        def tell(kind, error, trace):
            on_failure(error)
            os._exit(error.exit_code)
        sys.excepthook = tell
        """,
        main=main,
    )
    if process.wait_for("^ready|^failure")[0] == "ready":
        assert process.stop() == 0
        assert not process.matches("failure")
    else:
        assert process.wait() == 4
        assert len(process.matches("failure")) == 1
        process.wait_for(rf"failure: Too many open files: the limit is {limit} ")


def test_too_few_processes_are_one_clear_error(run: Run) -> None:
    process = run(
        """
        import resource
        supervising = supervise
        def supervise(*args, **kwargs):
            if os.getuid() == 0:
                os.setuid(65534)  # root has no limit
            resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
            return supervising(*args, **kwargs)
        options = dict(workers=1, graceful_timeout=30, boot_timeout=0.6)
        """
    )

    process.wait_for("worker 1 cannot be started: .*; tried again in 0.5 s")
    assert process.wait() == 3
    process.wait_for("failure: Worker 1 cannot be started: Resource temporarily")


def test_the_unix_socket_is_gone_after_the_stop_and_after_a_workers_death(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    process = run(f'binds = [Bind("unix", path={str(path)!r})]')
    process.wait_for(f"^ready unix:{path}")
    os.kill(worker_pid(process, 1), signal.SIGKILL)
    worker_pid(process, 1, count=2)

    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(path))
        client.sendall(b"hello\n")
        assert client.recv(100).startswith(b"worker ")

    assert process.stop() == 0
    assert not path.exists()


@pytest.mark.parametrize("main", [SUPERVISED, IN_PROCESS])
def test_it_serves_with_every_standard_descriptor_closed(
    tmp_path: Path, main: str
) -> None:
    port_file = tmp_path / "port"
    script = tmp_path / "stub.py"
    body = f"""
def on_ready(facts):
    port = listeners.sockets[0].getsockname()[1]
    with open({str(tmp_path / "new")!r}, "w") as file:
        file.write(str(port))
    os.rename({str(tmp_path / "new")!r}, {str(port_file)!r})
"""
    script.write_text(PROLOGUE + body + main)
    command = f'exec "{sys.executable}" "{script}" <&- >&- 2>&-'
    with Process(["/bin/sh", "-c", command], env={"PYTHONPATH": str(ROOT)}) as process:
        until(port_file.exists, "the port is known")
        address = ("127.0.0.1", int(port_file.read_text()))

        with socket.create_connection(address, timeout=30) as client:
            client.sendall(b"hello\n")
            assert client.recv(100).startswith(b"worker ")

        assert process.stop() == 0


def test_a_reader_of_the_log_that_went_away_does_not_stop_the_serving(
    tmp_path: Path,
) -> None:
    script = tmp_path / "stub.py"
    script.write_text(PROLOGUE + SUPERVISED)
    command = f'"{sys.executable}" "{script}" 2>&1 | sed -n -e p -e /^ready/q'
    with Process(["/bin/sh", "-c", command], env={"PYTHONPATH": str(ROOT)}) as process:
        process.wait_for("^ready")
        supervisor = int(process.wait_for(r"bound \d+ by (\d+)")[1])
        until(lambda: len(process.session()) == 4, "sed has ended")

        os.kill(supervisor, signal.SIGUSR1)  # it has something to log
        assert ask(process).startswith(b"worker ")

        os.kill(supervisor, signal.SIGTERM)
        until(lambda: not process.session(), "no process of the session is left")


def test_in_process_it_serves_without_a_child_and_stops_by_each_signal(
    run: Run,
) -> None:
    process = run(main=IN_PROCESS)
    process.wait_for("^ready")

    assert ask(process) == b"worker 0\n"
    assert process.session() == [process.pid]
    process.signal(signal.SIGUSR1)
    assert process.stop(signal.SIGINT) == 0
    process.wait_for("drained")


def test_in_process_a_repeated_stop_changes_nothing(run: Run) -> None:
    process = run(main=IN_PROCESS)
    process.wait_for("^ready")
    with connect(process) as client:
        client.sendall(b"slow\n")
        process.wait_for("slow request")
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
            process.signal(number)

        assert client.recv(100) == b"worker 0\n"
    assert process.wait() == 0


def test_in_process_a_second_ctrl_c_ends_at_once_and_removes_the_unix_socket(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    process = run(
        f"""
        binds = [Bind("unix", path={str(path)!r})]
        def stuck():
            while True:
                time.sleep(3600)
        def serve(number, channel):
            answering(number, channel, after_stop=lambda: (say("stuck"), stuck()))
        """,
        main=IN_PROCESS.replace("[1]", ""),
    )
    process.wait_for("^ready")
    process.signal(signal.SIGINT)
    process.wait_for("^stuck")

    assert process.stop(signal.SIGINT) == 0
    assert not path.exists()


def test_in_process_a_stop_that_does_not_end_is_cut_at_the_deadline(run: Run) -> None:
    process = run(
        """
        import djasgi.supervisor.worker
        djasgi.supervisor.worker.KILL_GRACE = 0.1
        """,
        main=IN_PROCESS.replace("graceful_timeout=30", "graceful_timeout=0.1"),
    )
    process.wait_for("^ready")
    with connect(process) as client:
        client.sendall(b"block\n")
        process.wait_for("blocking")

        assert process.stop() == 0
    process.wait_for("stopping at once")


def test_in_process_a_stop_during_the_import_ends_at_once(run: Run) -> None:
    process = run(
        """
        def serve(number, channel):
            say("importing")
            time.sleep(3600)
        """,
        main=IN_PROCESS,
    )
    process.wait_for("importing")

    assert process.stop() == 0


@pytest.mark.parametrize(
    ("statement", "code", "text"),
    [
        ("raise ProjectError('No shop.', hint='Mend.')", 3, "No shop. | Mend."),
        ("raise UsageError('No env.', hint='Mend.')", 2, "No env. | Mend."),
        ("1 / 0", 3, "ZeroDivisionError"),
        ("channel.ready(); 1 / 0", 1, "ZeroDivisionError"),
        ("channel.ready()", 1, "has ended by itself"),
    ],
)
def test_in_process_a_failure_is_reported_once_with_its_exit_code(
    run: Run, statement: str, code: int, text: str
) -> None:
    process = run(f"def serve(number, channel):\n    {statement}\n", main=IN_PROCESS)

    assert process.wait() == code
    assert [text in line for line in process.lines if "failure" in line] == [True]
