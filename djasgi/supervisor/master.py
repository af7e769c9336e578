"""The shell around the state machine: forks, waits in one place, and passes on.

Signal handlers and workers only write to pipes. This process holds none of the user's
code and has one thread, so nothing of the user's can keep it from reaping or stopping.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EAGAIN, EMFILE, ENFILE
from time import monotonic
from typing import Any, NoReturn

from djasgi.errors import DjasgiError, ExitCode, ListenError, ProjectError
from djasgi.supervisor import state
from djasgi.supervisor.sockets import Listeners, descriptors_exhausted
from djasgi.supervisor.state import Cause, Event
from djasgi.supervisor.worker import (
    IDLE_SIGNALS,
    STOP_SIGNALS,
    Inbox,
    Serve,
    decode_failure,
    ignore_stop_signals,
    nothing,
    run_worker,
)

logger = logging.getLogger("djasgi")


def supervise(
    serve: Serve,
    listeners: Listeners,
    *,
    workers: int,
    graceful_timeout: float,
    on_ready: Callable[[dict[str, Any]], None],
    on_failure: Callable[[DjasgiError], None],
    boot_timeout: float = 60.0,
) -> int:
    """Keep `workers` processes that run `serve`; the exit code of the program.

    `on_ready` is called once, when all of them are ready, with the facts that the last
    of them told; `on_failure` at most once,
    with the reason why the program ends. The timeouts are seconds. After it returns
    no worker is alive, and the stop signals are ignored: the process is about to end.
    """
    supervisor = Supervisor(
        serve,
        listeners,
        workers=workers,
        graceful_timeout=graceful_timeout,
        boot_timeout=boot_timeout,
        on_ready=on_ready,
        on_failure=on_failure,
    )
    return supervisor.run()


@dataclass(slots=True)
class Child:
    """A worker process that was not reaped yet."""

    number: int
    pid: int
    pipe: int | None
    inbox: Inbox = field(default_factory=Inbox)
    failure: DjasgiError | None = None


class Supervisor:
    """Carries out what the machine decides, and tells it what happened."""

    def __init__(
        self,
        serve: Serve,
        listeners: Listeners,
        *,
        workers: int,
        graceful_timeout: float,
        boot_timeout: float,
        on_ready: Callable[[dict[str, Any]], None],
        on_failure: Callable[[DjasgiError], None],
    ) -> None:
        self._serve = serve
        self._listeners = listeners
        self._graceful_timeout = graceful_timeout
        self._boot_timeout = boot_timeout
        self._on_ready = on_ready
        self._on_failure = on_failure
        self._machine = state.Machine(
            workers, boot_timeout=boot_timeout, graceful_timeout=graceful_timeout
        )
        # However wrong a decision is, it does not fill the machine with processes.
        self._most_children = 2 * workers + 1
        self._children: dict[int, Child] = {}
        self._gone: Child | None = None
        self._failure: OSError | DjasgiError | None = None
        self._facts: dict[str, Any] = {}
        self._interrupts = 0
        self._exit_code: int | None = None
        self._selector = selectors.PollSelector()
        self._pipes: list[int] = []

    def run(self) -> int:
        """Supervise until the machine says exit. Leaves no child behind."""
        try:
            self._pipes += os.pipe()
            self._pipes += os.pipe()
        except OSError:
            self._close()
            self._call(lambda: self._on_failure(descriptors_exhausted()))
            return ExitCode.LISTEN
        try:
            self._open()
            return self._loop()
        finally:
            ignore_stop_signals()
            self._abandon()
            self._close()

    def _loop(self) -> int:
        self._feed(state.Started())
        while self._exit_code is None:
            self._wait()
        return self._exit_code

    def _open(self) -> None:
        self._wakeup, wakeup_write, self._parent_read, self._parent_write = self._pipes
        os.set_blocking(self._wakeup, False)
        os.set_blocking(wakeup_write, False)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        # SIGCHLD too: where it was inherited as ignored, no exit status would be left.
        for number in (*STOP_SIGNALS, *IDLE_SIGNALS, signal.SIGCHLD):
            if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup
            signal.signal(number, nothing)

    def _close(self) -> None:
        signal.set_wakeup_fd(-1)
        for pipe in self._pipes:
            os.close(pipe)
        self._selector.close()

    def _abandon(self) -> None:
        """Kill and reap what is left, which is something only after an error."""
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        for pid in [*self._children]:
            os.waitpid(pid, 0)
            self._close_pipe(self._children.pop(pid))

    def _wait(self) -> None:
        """The one place to wait: for signals, messages, exits and deadlines."""
        deadline = self._machine.deadline()
        timeout = None if deadline is None else max(0.0, deadline - monotonic())
        readable = {key.fd for key, _ in self._selector.select(timeout)}
        # Signals first: a worker that was stopped together with us was not lost.
        if self._wakeup in readable:
            for number in os.read(self._wakeup, 4096):
                self._signalled(number)
        for child in [*self._children.values()]:
            if child.pipe in readable:
                self._receive(child)
        self._reap()
        self._feed(state.Tick())

    def _signalled(self, number: int) -> None:
        if number in STOP_SIGNALS:
            self._interrupts += number == signal.SIGINT
            immediate = number == signal.SIGQUIT or self._interrupts > 1
            if immediate or not self._machine.stopping:
                how = "stopping at once" if immediate else "stopping"
                logger.info("%s: %s", how, signal.Signals(number).name)
            self._feed(state.StopRequested(immediate=immediate))
        elif number in IDLE_SIGNALS:
            logger.info("%s does nothing", signal.Signals(number).name)

    def _receive(self, child: Child) -> None:
        """Pass on what is in the pipe; its end is no news, the exit will be."""
        while child.pipe is not None:
            try:
                data = os.read(child.pipe, 65_536)
            except BlockingIOError:
                return
            if not data:
                self._close_pipe(child)
            for message in child.inbox.feed(data):
                self._told(child, message)

    def _told(self, child: Child, message: dict[str, Any]) -> None:
        match message.get("type"):
            case "ready":
                self._facts = message.get("facts", {})
                self._feed(state.Ready(child.pid))
            case "failed":
                child.failure = decode_failure(message)
                self._feed(state.Failed(child.pid, child.failure.exit_code))

    def _reap(self) -> None:
        for pid, status in self._ended():
            if pid in self._children:
                self._reaped(pid, os.waitstatus_to_exitcode(status))

    def _ended(self) -> Iterator[tuple[int, int]]:
        """The children that have ended; as process 1, orphans of others as well."""
        if os.getpid() == 1:
            with suppress(ChildProcessError):
                while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                    yield ended
        else:
            results = (os.waitpid(pid, os.WNOHANG) for pid in [*self._children])
            yield from (ended for ended in results if ended[0])

    def _reaped(self, pid: int, status: int) -> None:
        # Forgotten before anything else happens: its number may be used again.
        self._gone = self._children.pop(pid)
        self._receive(self._gone)  # its last words come before its end
        self._close_pipe(self._gone)
        self._feed(state.Exited(pid, status))

    def _close_pipe(self, child: Child) -> None:
        if child.pipe is not None:
            self._selector.unregister(child.pipe)
            os.close(child.pipe)
            child.pipe = None

    def _feed(self, event: Event) -> None:
        events: deque[Event] = deque([event])
        while events:
            for action in self._machine.on(events.popleft(), monotonic()):
                events.extend(self._perform(action))

    def _perform(self, action: state.Action) -> list[Event]:
        match action:
            case state.Spawn(number):
                return [self._spawn(number)]
            case state.Listen():
                return self._listen()
            case state.Terminate(pid):
                os.kill(pid, signal.SIGTERM)
            case state.Kill(pid):
                os.kill(pid, signal.SIGKILL)
            case state.Announce():
                self._call(lambda: self._on_ready(self._facts))
            case state.ReportFailure():
                failure = self._explain(action)
                self._call(lambda: self._on_failure(failure))
            case state.CloseListeners():
                self._listeners.close()
            case state.Exit(code):
                self._exit_code = code
            case _:
                self._log(action)
        return []

    def _call(self, callback: Callable[[], None]) -> None:
        # It prints, and the terminal or the reader of the pipe may be gone.
        with suppress(OSError):
            callback()

    def _listen(self) -> list[Event]:
        try:
            self._listeners.listen()
        except ListenError as error:
            self._failure = error
            return [state.ListenFailed(error.exit_code)]
        return []

    def _spawn(self, number: int) -> Event:
        _flush()
        try:
            if len(self._children) >= self._most_children:
                raise BlockingIOError(EAGAIN, "too many workers are alive")
            return self._fork(number)
        except OSError as error:
            self._failure = error
            failure = spawn_failed(number, error)
            lasting = error.errno in (EMFILE, ENFILE)
            return state.SpawnFailed(number, lasting, failure.exit_code)

    def _fork(self, number: int) -> Event:
        read, write = os.pipe()
        # Unblocked only when each side has its own handlers: a signal that comes
        # before would be taken by a handler of the other's and be lost.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                self._become_worker(number, read, write)
        except OSError:
            os.close(read)
            raise
        finally:
            os.close(write)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.set_blocking(read, False)
        self._selector.register(read, selectors.EVENT_READ)
        self._children[pid] = Child(number, pid, read)
        return state.Spawned(number, pid)

    def _become_worker(self, number: int, read: int, write: int) -> NoReturn:
        """In the child: run the worker and end, never to come back to our callers."""
        status: int = ExitCode.FAILURE
        try:
            signal.set_wakeup_fd(-1)
            others = [child.pipe for child in self._children.values()]
            ours = {self._parent_read}
            for pipe in (read, *self._pipes, *others):
                if pipe is not None and pipe not in ours:
                    os.close(pipe)
            status = run_worker(
                number, self._serve, write, self._parent_read, self._graceful_timeout
            )
        except BaseException:  # noqa: BLE001  # nothing may go up the stack from here
            traceback.print_exc()
        finally:
            os._exit(status)

    def _explain(self, report: state.ReportFailure) -> DjasgiError:
        """The error for people behind a report of the machine."""
        child = self._children.get(report.pid or 0, self._gone)
        name = f"Worker {report.number}"
        match report.cause:
            case Cause.FAILED if child and child.failure:
                return child.failure
            case Cause.LISTEN if isinstance(self._failure, DjasgiError):
                return self._failure
            case Cause.SPAWN if isinstance(self._failure, OSError):
                return spawn_failed(report.number, self._failure)
            case Cause.TIMEOUT:
                return ProjectError(
                    f"{name} was not ready within {self._boot_timeout:g} s.",
                    hint="Look for what waits while the project is imported or its "
                    "lifespan starts: a database, another service.",
                )
        return ProjectError(
            f"{name} {describe_status(report.status)} before it was ready.",
            hint="Run it in this process to see more: --workers 0",
        )

    def _log(self, action: state.Lost | state.SpawnDelayed | state.Overdue) -> None:
        if isinstance(action, state.Lost):
            self._log_lost(action)
        elif isinstance(action, state.SpawnDelayed):
            text = "worker %d cannot be started: %s; tried again in %g s"
            logger.error(text, action.number, self._failure, action.delay)
        else:
            late = "was not ready" if action.booting else "did not stop"
            text = "worker %d (pid %d) %s in time: killed"
            logger.error(text, action.number, action.pid, late)

    def _log_lost(self, lost: state.Lost) -> None:
        cause, details = describe_status(lost.status), ""
        if self._gone and self._gone.failure:
            failure = self._gone.failure
            cause = f"failed: {failure.message.rstrip('.')}"
            details = f"\n{failure.details}".rstrip()
        when = f"in {lost.delay:g} s" if lost.delay else "now"
        text = "worker %d (pid %d) %s; the next one starts %s%s"
        logger.error(text, lost.number, lost.pid, cause, when, details)


def describe_status(status: int | None) -> str:
    """How a process ended, by its exit code or minus its signal."""
    if status is None or status >= 0:
        return f"ended with exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was killed by {name}"


def spawn_failed(number: int, error: OSError) -> DjasgiError:
    """The error for people when a process could not be made."""
    if error.errno in (EMFILE, ENFILE):
        return descriptors_exhausted()
    return ProjectError(
        f"Worker {number} cannot be started: {error.strerror}.",
        hint="Ask for fewer with --workers, or raise the limit of processes "
        "(ulimit -u) or of memory.",
    )


def _flush() -> None:
    """Write out what is buffered, or each child would write it again."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if stream is not None:
                stream.flush()
