"""Reloads of the supervisor over real processes, with a server of a few lines."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support.process import Process, until
from tests.support.stub import (
    ROOT,
    Run,
    ask,
    connect,
    starting,
    worker_pid,
    write_stub,
)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with starting(tmp_path) as start:
        yield start


@pytest.fixture
def go(tmp_path: Path) -> Path:
    """Lets the stub go on where it waits: see `WAITING`."""
    return tmp_path / "go"


WAITING = """
go = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "go")
def wait(where):
    if not os.path.exists(go):
        say(where)
        open(f"{os.path.dirname(go)}/in {where}", "w").close()
        while not os.path.exists(go):
            time.sleep(0.01)
"""

WINDOWS = {
    "check": """
        def check():
            wait("check")
            return 0
        """,
    "before exec": """
        original = handover.reexecute
        def reexecute(*args):
            wait("before exec")
            original(*args)
        handover.reexecute = reexecute
        """,
    "after exec": """
        variable = os.environ.get(handover.VARIABLE, "check:")
        if not variable.startswith("check:"):
            wait("after exec")
        """,
    "boot": """
        def serve(number, channel):
            if inherited is not None:
                wait("boot")
            answering(number, channel)
        """,
}


def waiting_in(run: Run, window: str, go: Path) -> Process:
    """A stub that waits for `go` in a part of its first reload."""
    process = run(WAITING + dedent(WINDOWS[window]))
    process.wait_for("^ready")
    process.signal(signal.SIGHUP)
    until((go.parent / f"in {window}").exists, "it waits there")
    return process


def zombies(process: Process) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    states = []
    for pid in children.split():
        text = Path(f"/proc/{pid}/stat").read_text()
        states.append(text.rpartition(")")[2].split()[0])
    return states.count("Z")


def test_the_same_process_serves_new_code_without_a_gap(
    run: Run, tmp_path: Path
) -> None:
    process = run()
    process.wait_for("^ready")
    with connect(process) as client:
        client.sendall(b"slow\n")
        process.wait_for("slow request")
        write_stub(tmp_path, 'say("new code")')

        process.signal(signal.SIGHUP)

        assert client.recv(100).startswith(b"worker ")
    process.wait_for(r"^reloaded in \d\.\d\d s$")
    assert worker_pid(process, 1, count=2) != worker_pid(process, 1)
    process.wait_for("drained", count=2)
    until(lambda: len(process.session()) == 3, "the old workers are gone")
    assert ask(process).startswith(b"worker ")
    assert process.stop() == 0
    assert len(process.matches("^ready")) == 1
    assert len(process.matches("^new code")) == 1, "what the check says is not shown"


BROKEN = "def serve(number, channel):\n    {}\n"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (BROKEN.format("raise ProjectError('No shop.', hint='Mend.')"), "No shop"),
        (BROKEN.format("os._exit(5)"), "Worker . ended with exit code 5 before it"),
        (BROKEN.format("time.sleep(3600)"), "Worker . was not ready within 5 s"),
        ("this is no Python", "The new djasgi ended with exit code 1"),
        (
            "print('Error: No such option.\\nSee: --help'); sys.exit(2)",
            "No such option. See: --help",
        ),
        ("def check():\n    time.sleep(3600)", "The project was not loaded within 5 s"),
        ("sys.exit(0)", "it does not come back to djasgi"),
    ],
    ids=["fails", "exits", "hangs", "syntax", "option", "check", "empty"],
)
def test_what_does_not_boot_leaves_the_old_code_and_the_next_reload_works(
    run: Run, tmp_path: Path, body: str, reason: str
) -> None:
    limit = 5 if "within" in reason else 60
    options = f"options = dict(workers=2, graceful_timeout=30, boot_timeout={limit})\n"
    process = run(options)
    process.wait_for("^ready")
    write_stub(tmp_path, options + body)

    process.signal(signal.SIGHUP)

    process.wait_for(f"reload failed, the old code goes on serving: .*{reason}")
    assert ask(process).startswith(b"worker ")
    assert worker_pid(process, 1) in process.session()
    write_stub(tmp_path, options)
    process.signal(signal.SIGHUP)
    process.wait_for("^reloaded in")
    until(lambda: len(process.session()) == 3, "nobody else is left")
    assert process.stop() == 0


@pytest.mark.parametrize("window", ["before exec", "after exec", "boot"])
def test_no_signal_is_lost_during_a_reload(run: Run, go: Path, window: str) -> None:
    process = waiting_in(run, window, go)
    for number in (
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGTTIN,
        signal.SIGTTOU,
    ):
        process.signal(number)
    go.touch()

    process.wait_for("^SIGUSR1 does nothing")
    process.wait_for("^the stacks of worker", count=2)
    process.wait_for(r"^[123] workers?$", count=2)  # in either order
    process.wait_for("^reloaded in", count=2)
    until(lambda: zombies(process) == 0, "everybody is reaped")
    assert process.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("window", WINDOWS)
def test_a_stop_in_the_middle_of_a_reload_stops_everything(
    run: Run, go: Path, window: str, number: signal.Signals
) -> None:
    process = waiting_in(run, window, go)

    process.signal(number)
    if "exec" in window:
        go.touch()

    assert process.wait() == 0
    assert len(process.matches(rf"^stopping.*: {number.name}$")) == 1
    assert not process.matches("reloaded|failed|killed")


@pytest.mark.parametrize("window", WINDOWS)
def test_a_supervisor_that_is_killed_in_the_middle_of_a_reload_leaves_nobody(
    run: Run, go: Path, window: str
) -> None:
    process = waiting_in(run, window, go)

    process.signal(signal.SIGKILL)

    until(lambda: not process.session(), "no process of the session is left")


@pytest.mark.parametrize("window", ["before exec", "after exec"])
def test_a_worker_that_dies_around_the_exec_is_reaped(
    run: Run, go: Path, window: str
) -> None:
    process = waiting_in(run, window, go)
    os.kill(worker_pid(process, 1), signal.SIGKILL)

    go.touch()

    process.wait_for(r"^worker 1 \(pid \d+\) was killed by SIGKILL")
    process.wait_for("^reloaded in")
    until(lambda: zombies(process) == 0, "everybody is reaped")
    assert process.stop() == 0


@pytest.mark.parametrize(
    ("obstacle", "reason"),
    [
        ("sys.executable = '/missing'", "No such file"),
        ("os.environ['BIG'] = 'x' * 200_000", "Argument list too long"),
        ("handover.START_DIRECTORY = '/missing'", "No such file"),
    ],
    ids=["interpreter", "environment", "directory"],
)
@pytest.mark.parametrize("when", ["exec", "check"])
def test_an_exec_that_fails_goes_on_serving(
    run: Run, when: str, obstacle: str, reason: str
) -> None:
    process = run(
        f"""
        if {when == "exec"}:
            original = handover.reexecute
            def reexecute(*args):
                {obstacle}
                original(*args)
            handover.reexecute = reexecute
        else:
            ready = on_ready
            def on_ready(facts):
                {obstacle}
                ready(facts)
        """
    )
    process.wait_for("^ready")

    for count in (1, 2):
        process.signal(signal.SIGHUP)
        process.wait_for(f"^reload failed.*{reason}", count=count)

    assert ask(process).startswith(b"worker ")
    assert process.stop() == 0
    assert len(process.matches("drained")) == 2


def test_a_program_that_breaks_after_the_check_loses_no_request(
    run: Run, go: Path, tmp_path: Path
) -> None:
    """An exec cannot be taken back: the program ends, and its workers drain."""
    process = waiting_in(run, "before exec", go)
    with connect(process) as client:
        client.sendall(b"slow\n")
        process.wait_for("slow request")
        write_stub(tmp_path, "this is no Python")

        go.touch()

        assert client.recv(100).startswith(b"worker ")
    assert process.wait() == 1
    until(lambda: process.session() == [], "no worker is left")
    process.wait_for("drained", count=2)


def test_a_program_from_standard_input_is_not_executed_anew(tmp_path: Path) -> None:
    script = write_stub(tmp_path, "")
    command = f'exec "{sys.executable}" - < "{script}"'
    with Process(["/bin/sh", "-c", command], env={"PYTHONPATH": str(ROOT)}) as process:
        process.wait_for("^ready")

        process.signal(signal.SIGHUP)

        process.wait_for("reload failed, .* does not come back to djasgi")
        assert ask(process).startswith(b"worker ")
        assert process.stop() == 0


def test_requests_for_a_reload_during_a_reload_are_one_more(run: Run, go: Path) -> None:
    process = waiting_in(run, "boot", go)
    for count in range(3):
        process.signal(signal.SIGHUP)
        process.wait_for("^reloading: SIGHUP", count=count + 2)

    go.touch()

    process.wait_for("^reloaded in", count=2)
    assert process.stop() == 0
    assert len(process.matches("^reloaded in")) == 2


def test_a_changed_link_of_the_working_directory_takes_effect(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_stub(tmp_path / name, f'say("code of {name}")')
    current = tmp_path / "current"
    current.symlink_to("one")
    env = {"PYTHONPATH": str(ROOT), "PWD": str(current)}
    command = [sys.executable, "stub.py"]
    with Process(command, env=env, cwd=current) as process:
        process.wait_for("^ready")
        process.wait_for("^code of one")
        (tmp_path / "new").symlink_to("two")
        (tmp_path / "new").replace(current)

        process.signal(signal.SIGHUP)

        process.wait_for("^reloaded in")
        process.wait_for("^code of two")
        assert process.stop() == 0


def test_the_number_of_workers_and_the_addresses_may_change(
    run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    process = run("options = dict(workers=1, graceful_timeout=30)")
    process.wait_for("^ready")
    write_stub(tmp_path, f'binds.append(Bind("unix", path={str(path)!r}))')
    process.signal(signal.SIGHUP)
    process.wait_for("^reloaded in")
    worker_pid(process, 2)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(path))
        client.sendall(b"hello\n")
        assert client.recv(100).startswith(b"worker ")

    write_stub(tmp_path, "")
    process.signal(signal.SIGHUP)

    process.wait_for("^reloaded in", count=2)
    until(lambda: not path.exists(), "the socket that is not wanted is removed")
    assert process.stop() == 0


def test_a_new_address_that_is_taken_meanwhile_leaves_the_old_code(
    run: Run, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = run("options = dict(workers=1, graceful_timeout=30)")
    process.wait_for("^ready")
    write_stub(
        tmp_path,
        f"""
        import socket
        options = dict(workers=1, graceful_timeout=30)
        binds.append(Bind("tcp", host="127.0.0.1", port={port}))
        def rival():
            global held
            held = socket.socket()
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(("127.0.0.1", {port}))
            held.listen()
        def serve(number, channel):
            rival()
            channel.ready()
            time.sleep(3600)
        """,
    )

    process.signal(signal.SIGHUP)

    process.wait_for(rf"reload failed, .*127\.0\.0\.1:{port} is in use")
    assert ask(process) == b"worker 1\n"
    assert process.stop() == 0


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ends = os.openpty()
    yield ends
    for descriptor in ends:
        try:
            os.close(descriptor)
        except OSError:
            continue


@pytest.mark.parametrize("reloaded", [False, True])
def test_a_hangup_stops_when_the_terminal_is_gone_and_reloads_before(
    run: Run, terminal: tuple[int, int], reloaded: bool
) -> None:
    ours, theirs = terminal
    process = run(
        preexec=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0), pass_fds=(theirs,)
    )
    process.wait_for("^ready")
    if reloaded:
        process.signal(signal.SIGHUP)
        process.wait_for("^reloaded in")

    os.close(theirs)
    os.close(ours)

    assert process.wait() == 0
    process.wait_for("^stopping: SIGHUP")


def test_under_nohup_it_stays_deaf_to_hangups_after_all(run: Run) -> None:
    process = run(preexec=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.wait_for("^ready")
    process.signal(signal.SIGHUP)
    process.signal(signal.SIGUSR1)
    process.wait_for("^SIGUSR1")

    assert process.stop() == 0
    assert not process.matches("reload")


def state_of(process: Process) -> tuple[int, int]:
    """The descriptors and the children of the supervisor."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    descriptors = [*Path(f"/proc/{process.pid}/fd").iterdir()]
    return len(descriptors), len(children.split())


PRELOADED = """
def load(reloading):
    say(f"loaded by {os.getpid()} for a reload: {reloading}")
    return Preloaded(lambda number, channel: serve(number, channel))
job = Job(lambda number, channel: serve(number, channel), load=load)
"""


@pytest.mark.parametrize("body", ["", PRELOADED], ids=["fresh", "preloaded"])
def test_many_reloads_leave_nothing_behind(run: Run, body: str) -> None:
    process = run(body)
    process.wait_for("^ready")
    children = 2 + bool(body)
    descriptors = []
    for count in range(1, 6):
        process.signal(signal.SIGHUP)
        process.wait_for("^reloaded in", count=count)
        until(lambda: state_of(process)[1] == children, "the old ones are gone")
        descriptors.append(state_of(process)[0])

    # What belongs to those that are gone may be closed a moment later.
    until(
        lambda: state_of(process) <= (descriptors[0], children),
        "no more descriptors than after the first",
    )
    assert process.stop() == 0


# Preloading


def preloader_pid(process: Process, *, count: int = 1) -> int:
    return int(process.wait_for(r"^loaded by (\d+)", count=count)[1])


def assert_is_child(pid: int, parent: int) -> None:
    status = Path(f"/proc/{pid}/status")
    until(lambda: f"\nPPid:\t{parent}\n" in status.read_text(), "it is adopted")


def test_the_code_is_loaded_once_and_the_workers_are_the_supervisors(run: Run) -> None:
    process = run(PRELOADED)
    process.wait_for("^ready")

    assert len(process.matches("^loaded by")) == 1
    for number in (1, 2):
        assert_is_child(worker_pid(process, number), process.pid)
    os.kill(worker_pid(process, 1), signal.SIGKILL)
    assert_is_child(worker_pid(process, 1, count=2), process.pid)
    assert len(process.matches("^loaded by")) == 1
    assert preloader_pid(process) in process.session()
    assert process.stop() == 0
    assert not process.matches("for a reload: True")


def test_a_reload_loads_the_new_code_with_checks_and_lets_the_old_go(run: Run) -> None:
    process = run(PRELOADED)
    process.wait_for("^ready")

    process.signal(signal.SIGHUP)

    process.wait_for("^reloaded in")
    process.wait_for(r"^loaded by \d+ for a reload: True")
    until(
        lambda: preloader_pid(process) not in process.session(),
        "the old preloader is gone",
    )
    os.kill(worker_pid(process, 1, count=2), signal.SIGKILL)
    worker_pid(process, 1, count=3)
    assert len(process.matches("^loaded by")) == 2
    assert process.stop() == 0


def test_a_preloader_that_is_killed_is_made_anew_for_the_next_worker(run: Run) -> None:
    process = run(PRELOADED)
    process.wait_for("^ready")
    os.kill(preloader_pid(process), signal.SIGKILL)
    until(lambda: len(process.session()) == 3, "it is gone")
    assert ask(process).startswith(b"worker ")
    assert len(process.matches("^loaded by")) == 1

    os.kill(worker_pid(process, 2), signal.SIGKILL)

    worker_pid(process, 2, count=2)
    assert len(process.matches("^loaded by")) == 2
    assert process.stop() == 0


HANGING = """
def load(reloading):
    say("loading")
    time.sleep(3600)
job = Job(lambda number, channel: serve(number, channel), load=load)
"""


def test_an_import_that_hangs_is_ended_at_the_boot_timeout(run: Run) -> None:
    options = "options = dict(workers=2, graceful_timeout=30, boot_timeout=0.3)"
    process = run(HANGING + options)

    assert process.wait() == 3
    process.wait_for(r"^failure: The project was not loaded within 0\.3 s")


def test_a_stop_during_an_import_that_hangs_ends_at_once(run: Run) -> None:
    process = run(HANGING)
    process.wait_for("^loading")

    assert process.stop() == 0
    assert not process.matches("failure|killed")


@pytest.mark.parametrize("at", ["start", "reload"])
def test_a_killed_supervisor_leaves_no_process_that_loads(
    run: Run, tmp_path: Path, at: str
) -> None:
    process = run(HANGING if at == "start" else PRELOADED)
    if at == "reload":
        process.wait_for("^ready")
        write_stub(tmp_path, HANGING)
        process.signal(signal.SIGHUP)
    process.wait_for("^loading")

    process.signal(signal.SIGKILL)

    until(lambda: not process.session(), "no process of the session is left")


def test_new_code_that_hangs_in_its_import_leaves_the_old(
    run: Run, tmp_path: Path
) -> None:
    options = "options = dict(workers=2, graceful_timeout=30, boot_timeout=5)\n"
    process = run(PRELOADED + options)
    process.wait_for("^ready")
    write_stub(tmp_path, HANGING + options)

    process.signal(signal.SIGHUP)

    process.wait_for("reload failed, .*The project was not loaded within 5 s")
    os.kill(worker_pid(process, 1), signal.SIGKILL)
    worker_pid(process, 1, count=2)
    until(lambda: len(process.session()) == 4, "with the old preloader")
    assert process.stop() == 0


@pytest.mark.parametrize(
    ("statement", "code", "text"),
    [
        ("raise ProjectError('No shop.', hint='Mend.')", 3, "No shop. | Mend."),
        ("raise UsageError('No env.', hint='Mend.')", 2, "No env. | Mend."),
        ("1 / 0", 3, "ZeroDivisionError"),
        ("sys.exit(0)", 3, "SystemExit"),
        ("os._exit(5)", 3, "The process that loads the project ended with exit code 5"),
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            3,
            "The process that loads the project was killed by SIGKILL",
        ),
    ],
)
def test_code_that_does_not_load_ends_the_program_with_one_report(
    run: Run, statement: str, code: int, text: str
) -> None:
    process = run(
        f"""
        def load(reloading):
            {statement}
        job = Job(lambda number, channel: serve(number, channel), load=load)
        """
    )

    assert process.wait() == code
    assert [text in line for line in process.lines if "failure" in line] == [True]


def test_what_an_import_leaves_that_cannot_be_forked_is_said_and_named(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "culprit.py").write_text(
        "import threading\n"
        "threading.Thread(target=threading.Event().wait, name='T', daemon=True).start()"
    )
    process = run(
        """
        def load(reloading):
            import culprit
            say(f"loaded by {os.getpid()}")
            return Preloaded(answering)
        def serve(number, channel):
            say(f"{'culprit' in sys.modules}")
            answering(number, channel)
        job = Job(lambda number, channel: serve(number, channel), load=load)
        """
    )
    process.wait_for("^ready")

    process.wait_for(
        r"^preload: each worker imports .* leaves the thread T \(module culprit\)"
    )
    process.wait_for("^False$", count=2)
    until(lambda: len(process.session()) == 3, "nobody holds the code")
    process.signal(signal.SIGHUP)
    process.wait_for("^reloaded in")
    assert process.stop() == 0


def test_preload_on_forks_all_the_same(run: Run) -> None:
    process = run(
        """
        def load(reloading):
            import threading
            threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
            return Preloaded(answering)
        job = Job(lambda number, channel: 1 / 0, load=load, preload="on")
        """
    )

    process.wait_for("^preload: forking all the same, with the thread")
    process.wait_for("^ready")
    assert process.stop() == 0


def test_without_preload_the_new_code_is_only_tried(run: Run, tmp_path: Path) -> None:
    off = PRELOADED.replace("load=load)", 'load=load, preload="off")')
    process = run(off)
    process.wait_for("^ready")
    assert not process.matches("^loaded by")

    process.signal(signal.SIGHUP)

    process.wait_for("^reloaded in")
    assert len(process.matches("^loaded by")) == 1
    until(lambda: len(process.session()) == 3, "what tried it is gone")
    write_stub(tmp_path, off.replace('say(f"loaded', '1 / 0; say(f"loaded'))
    process.signal(signal.SIGHUP)
    process.wait_for("^reload failed.*ZeroDivisionError")
    os.kill(worker_pid(process, 1, count=2), signal.SIGKILL)
    worker_pid(process, 1, count=3)
    until(lambda: len(process.session()) == 3, "nobody else is left")
    assert process.stop() == 0


def test_a_preloader_that_cannot_fork_says_why(run: Run) -> None:
    process = run(
        """
        import resource
        def load(reloading):
            if os.getuid() == 0:
                os.setuid(65534)  # root has no limit
            resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
            return Preloaded(answering)
        job = Job(lambda number, channel: 1 / 0, load=load, preload="on")
        options = dict(workers=1, graceful_timeout=30, boot_timeout=0.6)
        """
    )

    process.wait_for("worker 1 cannot be started: .*unavailable.*; tried again in")
    assert process.wait() == 3
    process.wait_for("failure: Worker 1 cannot be started: Resource temporarily")


@pytest.mark.parametrize("body", ["", PRELOADED], ids=["fresh", "preloaded"])
def test_a_worker_holds_no_descriptor_that_is_not_its_own(run: Run, body: str) -> None:
    process = run(
        body
        + """
def serve(number, channel):
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}").split(":")[0])
        except FileNotFoundError:
            pass
    say(f"holds {sorted(link for link in links if '/dev/' not in link)}")
    answering(number, channel)
"""
    )
    process.wait_for("^ready")
    process.signal(signal.SIGHUP)
    process.wait_for("^reloaded in")
    assert process.stop() == 0

    held = {match[1] for match in process.matches(r"^holds (.*)$")}
    # Standard output and error, its messages, and the supervisor's life; the board
    # (twice, because mmap has a copy); the listening socket.
    assert held == {"['/memfd', '/memfd', 'pipe', 'pipe', 'pipe', 'pipe', 'socket']"}
    assert len(process.matches("^holds")) == 4


# Hung workers, and more and fewer of them

BEATING = """
from djasgi.supervisor.board import BEAT
options = dict(workers=2, graceful_timeout=30, hang_timeout=1.0)
def beating(channel, after):
    loop = asyncio.get_running_loop()
    def beat():
        channel.slot[BEAT] = time.monotonic()
        loop.call_later(0.1, beat)
    beat()
    loop.call_later(0.2, after)
"""


def test_a_worker_whose_loop_is_blocked_is_shown_killed_and_replaced_in_time(
    run: Run,
) -> None:
    process = run(
        BEATING
        + """
def serve(number, channel):
    answering(number, channel, lambda: beating(channel, lambda: None))
"""
    )
    process.wait_for("^ready")
    with connect(process) as client:
        client.sendall(b"block\n")
        process.wait_for("^blocking")
        process.wait_for(r"^worker \d .* has not answered for 1 s: killed", 2.5)
        assert client.recv(100) == b""

    process.wait_for(r'File ".*stub.py", line \d+ in answer$')
    process.wait_for(r"^worker \d is", count=3)
    names = [line for line in process.lines if "stacks of" in line or "killed" in line]
    assert "stacks of" in names[0], "first the stacks, then the kill"
    assert process.stop() == 0


def test_a_stopped_worker_and_one_in_a_debugger_are_not_killed(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "pdb.py").write_text("import time\ndef ask(): time.sleep(3600)\n")
    process = run(
        BEATING.replace("workers=2", "workers=3")
        + """
def trouble(number):
    import pdb
    if number == 1:
        pdb.ask()
    if number == 3 and not os.path.exists("stub.py.once"):
        open("stub.py.once", "w").close()
        os.kill(worker_2(), signal.SIGSTOP)
        time.sleep(3600)
def worker_2():
    return int(open("stub.py.2").read())
def serve(number, channel):
    if number == 2:
        open("stub.py.2", "w").write(str(os.getpid()))
    answering(number, channel, lambda: beating(channel, lambda: trouble(number)))
""",
        cwd=tmp_path,
    )
    process.wait_for("^ready")
    process.wait_for("^worker 3 .* has not answered for 1 s: killed")
    worker_pid(process, 3, count=2)

    assert {worker_pid(process, n) for n in (1, 2)} <= set(process.session())
    assert not process.matches(r"^worker [12] .*killed")
    os.kill(worker_pid(process, 2), signal.SIGCONT)
    process.signal(signal.SIGQUIT)
    assert process.wait() == 0


def test_one_more_worker_and_one_less(run: Run) -> None:
    process = run()
    process.wait_for("^ready")

    process.signal(signal.SIGTTIN)
    worker_pid(process, 3)
    process.wait_for("^3 workers$")
    process.signal(signal.SIGTTOU)
    process.wait_for("^worker 3 drained")
    until(lambda: len(process.session()) == 3, "the third is gone")
    process.signal(signal.SIGTTOU)
    process.wait_for("^worker 2 drained")
    process.wait_for("^1 worker$")
    process.signal(signal.SIGTTOU)
    process.signal(signal.SIGUSR1)
    process.wait_for("^SIGUSR1")

    assert ask(process) == b"worker 1\n"
    assert process.stop() == 0


def test_a_worker_that_asks_for_it_is_replaced_before_it_ends(run: Run) -> None:
    process = run(
        """
        options = dict(workers=1, graceful_timeout=30)
        once = os.path.abspath(sys.argv[0]) + ".once"
        def old(channel):
            if not os.path.exists(once):
                open(once, "w").close()
                channel.retire("is old")
        def serve(number, channel):
            loop = lambda: asyncio.get_running_loop()
            answering(number, channel, lambda: loop().call_later(0.3, old, channel))
        """
    )
    process.wait_for(r"^worker 1 \(pid \d+\) is old: its successor starts")
    worker_pid(process, 1, count=2)
    process.wait_for("^worker 1 drained")

    first, second = (worker_pid(process, 1, count=count) for count in (1, 2))
    assert [line for line in process.lines if line.startswith("worker 1 ")] == [
        f"worker 1 is {first}",
        f"worker 1 (pid {first}) is old: its successor starts",
        f"worker 1 is {second}",
        "worker 1 drained",
    ]
    assert process.stop() == 0
