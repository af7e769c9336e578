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
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import EAGAIN, EMFILE, ENFILE
from time import monotonic
from typing import TYPE_CHECKING, Any

from djasgi.errors import DjasgiError, ExitCode, ListenError
from djasgi.supervisor import events, handover, report, signals
from djasgi.supervisor.board import Board
from djasgi.supervisor.check_process import CheckProcess
from djasgi.supervisor.children import Child
from djasgi.supervisor.descriptors import descriptors_exhausted
from djasgi.supervisor.events import Event
from djasgi.supervisor.handover import Inherited
from djasgi.supervisor.job import Job, Policy
from djasgi.supervisor.liveness import Liveness
from djasgi.supervisor.messages import as_error
from djasgi.supervisor.service import Service
from djasgi.supervisor.sockets import Listeners
from djasgi.supervisor.spawning import Spawning
from djasgi.supervisor.stacks import Dumps
from djasgi.supervisor.state import Machine
from djasgi.supervisor.status import supervisor_status
from djasgi.supervisor.system import has_terminal
from djasgi.supervisor.worker import STACK_SIGNAL, ignore_stop_signals

if TYPE_CHECKING:
    from djasgi.supervisor.oom import OutOfMemory

logger = logging.getLogger("djasgi")


def supervise(
    job: Job,
    listeners: Listeners,
    policy: Policy,
    *,
    on_ready: Callable[[dict[str, Any]], None],
    on_failure: Callable[[DjasgiError], None],
    services: Sequence[Callable[[], Service]] = (),
    inherited: Inherited | None = None,
    refused: DjasgiError | None = None,
    keep: dict[str, Any] | None = None,
) -> int:
    """Keep `policy.workers` processes that do `job`; the exit code of the program.

    `on_ready` is called once, when all of them are ready, with the facts that the last
    of them told; `on_failure` at most once, with the reason why the program ends. After
    it returns no worker is alive, and the stop signals are ignored: the process is
    about to end. `inherited` is what the supervisor before this one has handed over;
    with `refused`, the reason why its reload ends here. `keep` is handed over, as it
    is, to the next one.
    """
    supervisor = Supervisor(
        job,
        listeners,
        policy,
        on_ready=on_ready,
        on_failure=on_failure,
        services=services,
        inherited=inherited,
        refused=refused,
        keep=keep or {},
    )
    return supervisor.run()


class Supervisor:
    """Carries out what the machine decides, and tells it what happened."""

    def __init__(
        self,
        job: Job,
        listeners: Listeners,
        policy: Policy,
        *,
        on_ready: Callable[[dict[str, Any]], None],
        on_failure: Callable[[DjasgiError], None],
        services: Sequence[Callable[[], Service]],
        inherited: Inherited | None,
        refused: DjasgiError | None,
        keep: dict[str, Any],
    ) -> None:
        self.policy = policy
        self.listeners = listeners
        self.started = inherited.started if inherited else monotonic()
        self.reloads = report.Reloads()
        if inherited:
            self.reloads = report.Reloads(inherited.reload_began, inherited.last_reload)
        self._job = job
        self._on_ready = on_ready
        self._on_failure = on_failure
        self._make_services = services
        self._services: list[Service] = []
        self._inherited = inherited
        self._refused = refused
        self._keep = keep
        timeouts = {
            "boot_timeout": policy.boot_timeout,
            "graceful_timeout": policy.graceful_timeout,
            "hang_timeout": policy.hang_timeout,
            "drain_delay": policy.drain_delay,
        }
        self.machine = (
            Machine.resumed(inherited.machine, **timeouts)
            if inherited
            else Machine(policy.workers, **timeouts)
        )
        self.children: dict[int, Child] = {}
        self._liveness = Liveness(policy.hang_timeout)
        self._dumps = Dumps()
        self._gone: Child | None = None
        self._failure: DjasgiError | None = None
        self._facts: dict[str, Any] = {}
        self._interrupts = 0
        self._exit_code: int | None = None
        self._selector = selectors.PollSelector()  # without a descriptor of its own
        self._pipes: list[int] = []
        self._check: CheckProcess | None = None
        self._terminal = inherited.terminal if inherited else has_terminal()
        self._oom: OutOfMemory | None = None

    def run(self) -> int:
        """Supervise until the machine says exit. Leaves no child behind."""
        try:
            self._open()
        except OSError as error:
            if error.errno not in (EMFILE, ENFILE):
                raise
            self._close()
            self._call(lambda: self._on_failure(descriptors_exhausted()))
            return ExitCode.LISTEN
        try:
            return self._loop()
        finally:
            ignore_stop_signals()
            self._abandon()
            self._close()

    def _open(self) -> None:
        inherited = self._inherited
        if inherited:
            self._pipes += inherited.pipes
        else:
            self._pipes += os.pipe()
            self._pipes += os.pipe()
        self._wakeup, wakeup_write, parent_read, _ = self._pipes
        self.board = Board(inherited.board if inherited else None)
        self.spawning = Spawning(
            self._job,
            self.board,
            self.policy,
            parent_pipe=parent_read,
            watch=self._watch,
            descriptors=self._descriptors,
        )
        if inherited:
            for child in inherited.children(self.board):
                self.children[child.pid] = child
                self._watch(child)
            self.spawning.adopt(inherited)
        os.set_blocking(self._wakeup, False)
        self._selector.register(self._wakeup, selectors.EVENT_READ, self._take_signals)
        signals.handle(wakeup_write)

    def _count_memory_kills(self) -> None:
        from djasgi.supervisor.oom import (
            OutOfMemory,
        )  # not on the way to the first page

        oom = OutOfMemory()
        oom.prepare()
        self._oom = oom

    def _start_services(self) -> None:
        for make in self._make_services:
            with self._done_without():
                service = make()
                service.register(self._selector)
                self._services.append(service)

    @contextmanager
    def _done_without(self) -> Iterator[None]:
        """Do what accompanies the serving. It may fail, with an error of the program;
        but not after an exec, when there are workers that serve: then it is said.
        """
        try:
            yield
        except Exception as error:
            if self._inherited is None:
                raise
            failure = as_error(error)
            text = "serving goes on without something of djasgi's own: %s"
            said = report.sentence(failure)
            report.log(logging.ERROR, text, said, details=failure.details)

    def _loop(self) -> int:
        if self._inherited is None:
            self._feed(events.Started())
            # Beside the import of the project, which has begun in another process.
            self._start_services()
        else:
            self._start_services()
            with self._done_without():
                self._count_memory_kills()
            if self._refused is None:
                self._feed(events.Resumed(self.policy.workers))
            else:
                self._failure = self._refused
                self._feed(events.ReloadAborted())
        # Those that ended during an exec have sent a signal that nobody took.
        self._reap()
        while self._exit_code is None:
            self._wait()
        return self._exit_code

    def _close(self) -> None:
        signal.set_wakeup_fd(-1)
        for pipe in self._pipes:
            os.close(pipe)
        self._selector.close()
        for service in self._services:
            service.close()

    def _abandon(self) -> None:
        """Kill and reap what is left, which is something only after an error."""
        for pid in self.children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._cancel_check()
        self.spawning.close()
        for child in self.children.values():
            with suppress(ChildProcessError):
                os.waitpid(child.pid, 0)
            child.close()
        self.children.clear()

    def _descriptors(self) -> Iterator[int]:
        """What a fork of this process must not keep open."""
        wakeup, wakeup_write, _, parent_write = self._pipes
        yield from (wakeup, wakeup_write, parent_write)
        for child in self.children.values():
            if child.pipe is not None:
                yield child.pipe
        for service in self._services:
            yield from service.hand_over()[1]
        if self._check is not None and self._check.pipe is not None:
            yield self._check.pipe

    def _watch(self, child: Child) -> None:
        if child.pipe is not None:
            os.set_blocking(child.pipe, False)
            self._selector.register(
                child.pipe, selectors.EVENT_READ, lambda: self._receive(child)
            )
            child.unwatch = self._selector.unregister

    # The one place to wait: for signals, messages, exits and deadlines.

    def _wait(self) -> None:
        deadline = self._deadline()
        timeout = None if deadline is None else max(0.0, deadline - monotonic())
        ready = self._selector.select(timeout)
        # Signals first: a worker that was stopped together with us was not lost.
        ready.sort(key=lambda item: item[0].fd != self._wakeup)
        for key, _ in ready:
            if key.fd in self._selector.get_map():  # not closed by one before
                key.data()
        self._reap()
        self._look(monotonic())
        self._feed(events.Tick())

    def _deadline(self) -> float | None:
        times = [
            self.machine.deadline(),
            self._liveness.next_look,
            *self._dumps.deadlines(),
            *(service.deadline() for service in self._services),
        ]
        return min((time for time in times if time is not None), default=None)

    def _look(self, now: float) -> None:
        slots = {c.pid: c.slot for c in self.children.values() if c.slot is not None}
        for pid in self._liveness.look(slots, now):
            self._feed(events.Hung(pid))
        for child in self._dumps.due(now):
            self._finish_dump(child)
        if self._oom is not None:
            self._oom.look(now)
        for service in self._services:
            service.tick(self, now)

    # Signals

    def _take_signals(self) -> None:
        for number in signals.received(self._wakeup):
            self._signalled(number)

    def _signalled(self, number: signal.Signals) -> None:
        match number:
            case signal.SIGHUP if not (self._terminal and not has_terminal()):
                self.request_reload("SIGHUP")
            case signal.SIGTERM | signal.SIGINT | signal.SIGQUIT | signal.SIGHUP:
                self._interrupts += number == signal.SIGINT
                if number == signal.SIGINT and not self.machine.stopping:
                    # Whoever sits at a terminal does not wait for idle connections.
                    self.board.set_linger(0)
                immediate = number == signal.SIGQUIT or self._interrupts > 1
                self.request_stop(number.name, immediate=immediate)
            case signal.SIGTTIN:
                self._feed(events.Scale(1))
            case signal.SIGTTOU:
                self._feed(events.Scale(-1))
            case signal.SIGUSR1:
                logger.info("SIGUSR1 does nothing: logs go to standard output")
            case signal.SIGUSR2:
                for child in [*self.children.values()]:
                    self._dump(child)

    def request_stop(self, origin: str, *, immediate: bool = False) -> None:
        """Stop, as `origin` has asked."""
        if immediate or not self.machine.stopping:
            how = "stopping at once" if immediate else "stopping"
            logger.info("%s: %s", how, origin)
        self._feed(events.StopRequested(immediate=immediate))

    def request_reload(self, origin: str) -> None:
        """Reload, as `origin` has asked; during a reload, once more afterwards."""
        if self.machine.stopping:
            return
        logger.info("reloading: %s", origin)
        self._feed(events.ReloadRequested())

    # What the children say

    def _receive(self, child: Child) -> None:
        """Pass on what is in the pipe; its end is no news, the exit will be."""
        for message in child.read():
            self._told(child, message)
        if child.pipe is None and not child.pid:
            self._feed_all(self.spawning.lost(child))

    def _told(self, child: Child, message: dict[str, Any]) -> None:
        match message.get("type"):
            case "ready":
                self._facts = message.get("facts", {})
                self._feed(events.Ready(child.pid))
            case "failed" if child.number:
                assert child.failure is not None, "Child.read() has set it"  # noqa: S101
                self._feed(events.Failed(child.pid, child.failure.exit_code))
            case "retire":
                reason = str(message.get("reason", ""))
                self._feed(events.RetireRequested(child.pid, reason))
            case "stuck":
                self._dumps.explain(child, message)
                self._dump(child)
            case "hello":
                self._born(child, int(message["pid"]))
            case _:
                self._feed_all(self.spawning.told(child, message))

    def _born(self, child: Child, pid: int) -> None:
        """A worker that the preloader has forked says who it is."""
        wanted = self.spawning.born(child)
        child.pid = pid
        self.children[pid] = child
        if wanted:
            self._feed(events.Spawned(child.number, child.generation, pid))
        else:
            self._signal(pid, signal.SIGKILL)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        # One that was reaped has no number any more; its last words come after.
        if pid in self.children:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    # Exits

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._reaped(pid, os.waitstatus_to_exitcode(status))

    def _reaped(self, pid: int, status: int) -> None:
        if pid not in self.children:
            # A worker says who it is before anything can befall it.
            for child in self.spawning.unborn():
                self._receive(child)
        if pid in self.children:
            # Forgotten before anything else happens: its number may be used again.
            self._gone = self.children.pop(pid)
            self._receive(self._gone)  # its last words come before its end
            self._gone.close()  # somebody it has started may have it as well
            if self._gone in self._dumps:
                self._finish_dump(self._gone)
            if self._gone.slot is not None:
                self.board.free(self._gone.slot)
            self._feed(events.Exited(pid, status))
        elif self._check is not None and pid == self._check.pid:
            self._checked(status)
        else:
            self._feed_all(self.spawning.reaped(pid, status))
        # Anybody else was an orphan of the project, which nobody waits for.

    # Decisions

    def _feed(self, event: Event) -> None:
        self._feed_all([event])

    def _feed_all(self, happened: list[Event]) -> None:
        pending: deque[Event] = deque(happened)
        while pending:
            for action in self.machine.on(pending.popleft(), monotonic()):
                pending.extend(self._perform(action))
                for service in self._services:
                    service.tell(self, action)

    def _perform(self, action: events.Action) -> list[Event]:
        match action:
            case events.Prepare(generation):
                return self._prepare(generation)
            case events.Discard(generation):
                return self.spawning.discard(generation)
            case events.Spawn(number, generation):
                return self._spawn(number, generation)
            case events.Terminate(pid):
                self._signal(pid, signal.SIGTERM)
            case events.Kill(pid):
                self._signal(pid, signal.SIGKILL)
            case events.Dump(pid) if pid in self.children:
                self._dump(self.children[pid])
            case events.Listen(generation):
                return self._listen(generation)
            case events.Announce():
                self._call(lambda: self._on_ready(self._facts))
                self._count_memory_kills()
            case events.ReportFailure():
                failure = self._explain(action)
                self._call(lambda: self._on_failure(failure))
            case events.CloseListeners():
                self.listeners.close()
            case events.NotReady():
                self.board.not_ready()
                delay = self.policy.drain_delay
                logger.info("not ready any more; stopping in %g s", delay)
            case events.Check():
                return self._start_check()
            case events.CancelCheck():
                self._cancel_check()
            case events.Reexecute():
                return self._reexecute()
            case events.ReloadFailed():
                self._reload_failed(action)
            case events.Reloaded():
                self._reloaded()
            case events.Exit(code):
                self._exit_code = code
            case _:
                self._log(action)
        return []

    def _call(self, callback: Callable[[], None]) -> None:
        # It prints, and the terminal or the reader of the pipe may be gone.
        with suppress(OSError):
            callback()

    def _prepare(self, generation: int) -> list[Event]:
        reloading = self.machine.announced
        try:
            return self.spawning.prepare(generation, reloading=reloading)
        except OSError as error:
            self.spawning.cannot(error)
            failure = report.spawn_failed(0, error)
            return [events.PrepareFailed(generation, failure.exit_code)]

    def _listen(self, generation: int) -> list[Event]:
        try:
            self.listeners.listen()
        except ListenError as error:
            self._failure = error
            return [events.ListenFailed(error.exit_code)]
        return [events.Listening(generation)]

    def _spawn(self, number: int, generation: int) -> list[Event]:
        try:
            alive = len(self.children) + len(self.spawning.unborn())
            # However wrong a decision is, it does not fill the machine with processes.
            if alive >= self.machine.pool.most_workers:
                raise BlockingIOError(EAGAIN, "too many workers are alive")
            child = self.spawning.spawn(number, generation)
        except OSError as error:
            self.spawning.cannot(error)
            failure = report.spawn_failed(number, error)
            lasting = error.errno in (EMFILE, ENFILE)
            return [events.SpawnFailed(number, generation, lasting, failure.exit_code)]
        if child is None:
            return []
        self.children[child.pid] = child
        return [events.Spawned(number, generation, child.pid)]

    # Stacks

    def _dump(self, child: Child) -> None:
        self._dumps.begin(child)
        self._signal(child.pid, STACK_SIGNAL)

    def _finish_dump(self, child: Child) -> None:
        self._dumps.end(child)
        self._receive(child)
        worker = self.machine.pool.workers.get(child.pid)
        slot = child.slot
        hung = worker is not None and worker.stuck is not None and slot is not None
        if self._dumps.log(child, hung=hung) and slot is not None:
            self._liveness.spare(child.pid, slot)
            self._feed(events.Spared(child.pid))

    # Reloading

    def _start_check(self) -> list[Event]:
        self.reloads.begin()
        try:
            self._check = CheckProcess(self._hand_over()[0])
        except OSError as error:
            self._failure = report.spawn_failed(0, error)
            return [events.ReloadAborted()]
        self._check.watch(self._selector)
        return []

    def _checked(self, status: int) -> None:
        assert self._check is not None, "_reaped() has looked"  # noqa: S101
        check, self._check = self._check, None
        succeeded = check.succeeded(status)
        if not succeeded:
            self._failure = check.failure(status)
        check.close()
        self._feed(events.Checked() if succeeded else events.ReloadAborted())

    def _cancel_check(self) -> None:
        if self._check is not None:
            check, self._check = self._check, None
            check.kill()
            check.close()

    def _hand_over(self) -> tuple[dict[str, Any], list[int]]:
        """The state of this supervisor for the next, and the descriptors in it."""
        children = [*self.children.values()]
        services = {type(s).__name__: s.hand_over() for s in self._services}
        preloaders, preloader_descriptors = self.spawning.hand_over()
        state = {
            "started": self.started,
            "machine": self.machine.snapshot(),
            "pipes": self._pipes,
            "board": self.board.descriptor,
            "children": [child.hand_over() for child in children],
            "preloaders": preloaders,
            "listeners": self.listeners.hand_over(),
            "services": {name: state for name, (state, _) in services.items()},
            "terminal": self._terminal,
            "reload_began": self.reloads.began,
            "last_reload": self.reloads.last,
            "keep": self._keep,
        }
        descriptors = [
            *self._pipes,
            self.board.descriptor,
            *(child.pipe for child in children if child.pipe is not None),
            *preloader_descriptors,
            *self.listeners.descriptors(),
            *(number for _, numbers in services.values() for number in numbers),
        ]
        return state, descriptors

    def _reexecute(self) -> list[Event]:
        sys.stdout.flush()
        try:
            handover.reexecute(*self._hand_over())
        except OSError as error:
            self._failure = DjasgiError(
                f"djasgi cannot execute itself anew: {error}.",
                hint="The old code goes on serving.",
            )
        return [events.ReloadAborted()]

    def _reload_failed(self, failed: events.ReloadFailed) -> None:
        error = self._explain(failed)
        self.listeners.revert()
        self.reloads.failed(error)

    def _reloaded(self) -> None:
        self.reloads.succeeded(self.listeners.addresses if self.listeners.moved else ())
        self.listeners.commit()

    # What there is to know

    def status(self) -> dict[str, Any]:
        """The state of this supervisor and its workers, as JSON."""
        return supervisor_status(
            self.machine,
            [*self.children.values()],
            self.policy,
            started=self.started,
            addresses=self.listeners.addresses,
            last_reload=self.reloads.last,
        )

    # Words

    def _explain(
        self, action: events.ReportFailure | events.ReloadFailed
    ) -> DjasgiError:
        child = self.children.get(action.pid or 0, self._gone)
        failure: OSError | DjasgiError | None = self._failure
        if action.cause is events.Cause.SPAWN or not action.number:
            child = self.spawning.failed
            failure = self.spawning.error or failure
        return report.explain(
            action,
            child=child,
            failure=failure,
            boot_timeout=self.policy.boot_timeout,
        )

    def _log(self, action: events.Action) -> None:
        match action:
            case events.Lost():
                killed = (
                    action.status == -signal.SIGKILL
                    and self._oom is not None
                    and self._oom.happened(monotonic())
                )
                report.log_lost(action, self._gone, oom_killed=killed)
            case events.SpawnDelayed():
                report.log_delayed(action, self.spawning.failed, self.spawning.error)
            case _:
                report.log_decision(action, hang_timeout=self.policy.hang_timeout)
