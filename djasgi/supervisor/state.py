"""What the supervisor decides: events in, actions out; no processes and no clock.

A worker is started, ready, draining, and then gone. Each of the N places has a number
and at most one worker. Until every place was ready at the same time the supervisor has
not announced itself, and a worker that does not boot ends the program. After that a
worker that is lost is replaced, at first at once and then with a growing delay.

Times are seconds of any clock that only goes forward; they come with the events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from djasgi.errors import ExitCode
from djasgi.supervisor.record import Record

KILL_GRACE = 5.0
"""Seconds between the end of the graceful timeout and the kill."""

HEALTHY_AFTER = 30.0
"""A worker that was ready for so many seconds clears the failures of its place."""

DELAYS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds before the next worker, by the number of failures before this one."""


class Phase(Enum):
    STARTED = "started"
    READY = "ready"
    DRAINING = "draining"


class Cause(Enum):
    """Why the first generation did not boot."""

    FAILED = "failed"
    EXITED = "exited"
    TIMEOUT = "timeout"
    SPAWN = "spawn"
    LISTEN = "listen"


class Started(Record):
    """The supervisor begins."""


class Spawned(Record):
    number: int
    pid: int


class SpawnFailed(Record):
    """No process could be made; `lasting` when waiting will not mend it."""

    number: int
    lasting: bool
    exit_code: int = ExitCode.PROJECT


class Ready(Record):
    pid: int


class Failed(Record):
    """The worker said that it failed, and is about to exit."""

    pid: int
    exit_code: int


class Exited(Record):
    """The process is gone; `status` is the exit code, or minus the signal."""

    pid: int
    status: int


class ListenFailed(Record):
    exit_code: int


class StopRequested(Record):
    immediate: bool = False


class Tick(Record):
    """Time has passed."""


Event = (
    Started
    | Spawned
    | SpawnFailed
    | Ready
    | Failed
    | Exited
    | ListenFailed
    | StopRequested
    | Tick
)


class Spawn(Record):
    """Answered by Spawned or SpawnFailed."""

    number: int
    generation: int


class Terminate(Record):
    pid: int


class Kill(Record):
    pid: int


class Listen(Record):
    pass


class Announce(Record):
    pass


class CloseListeners(Record):
    pass


class ReportFailure(Record):
    """Tell people why the program ends. At most once."""

    cause: Cause
    number: int
    pid: int | None = None
    status: int | None = None


class Lost(Record):
    """Log that a worker is gone unasked; the next one starts in `delay` seconds."""

    number: int
    pid: int
    status: int
    delay: float


class SpawnDelayed(Record):
    """Log that no process could be made; it is tried again in `delay` seconds."""

    number: int
    delay: float


class Overdue(Record):
    """Log that a worker has not become ready, or has not ended, in time."""

    number: int
    pid: int
    booting: bool


class Exit(Record):
    code: int


Action = (
    Spawn
    | Terminate
    | Kill
    | Listen
    | Announce
    | CloseListeners
    | ReportFailure
    | Lost
    | SpawnDelayed
    | Overdue
    | Exit
)


@dataclass(slots=True)
class Worker:
    """A live worker as the supervisor sees it."""

    number: int
    generation: int
    pid: int
    phase: Phase
    deadline: float | None
    ready_at: float | None = None
    killed: bool = False


@dataclass(slots=True)
class Place:
    """One of the N places: taken by a worker, being filled, or due at a time."""

    number: int
    due: float | None = None
    wanted_since: float = 0.0
    spawning: bool = False
    failures: int = 0


class Machine:
    """The state of the supervisor."""

    def __init__(
        self, workers: int, *, boot_timeout: float, graceful_timeout: float
    ) -> None:
        self.generation = 1
        self.announced = False
        self.stopping = False
        self.exited = False
        self.workers: dict[int, Worker] = {}
        self._boot_timeout = boot_timeout
        self._stop_timeout = graceful_timeout + KILL_GRACE
        self._exit_code: int = ExitCode.STOPPED
        self._immediate = False
        self._listening = False
        self._places = {number: Place(number) for number in range(1, workers + 1)}

    def on(self, event: Event, now: float) -> list[Action]:
        """What to do about `event`, in order."""
        if self.exited:
            return []
        actions = [*self._react(event, now), *self._due(now)]
        if self.stopping and not self.workers and not self._spawning():
            self.exited = True
            actions.append(Exit(self._exit_code))
        return actions

    def deadline(self) -> float | None:
        """When the next Tick is needed, if nothing happens before."""
        times = [w.deadline for w in self.workers.values()]
        times += [place.due for place in self._places.values()]
        return min((time for time in times if time is not None), default=None)

    def _spawning(self) -> bool:
        return any(place.spawning for place in self._places.values())

    def _react(self, event: Event, now: float) -> Iterator[Action]:
        match event:
            case Started():
                for place in self._places.values():
                    place.due = place.wanted_since = now
            case Spawned(number, pid):
                yield from self._spawned(self._places[number], pid, now)
            case SpawnFailed(number):
                yield from self._spawn_failed(self._places[number], event, now)
            case StopRequested(immediate):
                yield from self._stop(now, ExitCode.STOPPED)
                if immediate:
                    yield from self._kill_all()
            case ListenFailed(exit_code):
                yield from self._give_up(
                    ReportFailure(Cause.LISTEN, number=0), exit_code, now
                )
            case Ready(pid) if pid in self.workers:
                yield from self._ready(self.workers[pid], now)
            case Failed(pid, exit_code) if pid in self.workers:
                yield from self._failed(self.workers[pid], exit_code, now)
            case Exited(pid, status) if pid in self.workers:
                yield from self._exited(self.workers[pid], status, now)
            case _:
                pass

    def _spawned(self, place: Place, pid: int, now: float) -> Iterator[Action]:
        place.spawning = False
        worker = Worker(
            place.number, self.generation, pid, Phase.STARTED, now + self._boot_timeout
        )
        self.workers[pid] = worker
        if self.stopping:
            yield from self._drain(worker, now)
        if self._immediate:
            yield from self._kill(worker)

    def _spawn_failed(
        self, place: Place, event: SpawnFailed, now: float
    ) -> Iterator[Action]:
        place.spawning = False
        if self.stopping:
            return
        late = now - place.wanted_since >= self._boot_timeout
        if not self.announced and (event.lasting or late):
            report = ReportFailure(Cause.SPAWN, place.number)
            yield from self._give_up(report, event.exit_code, now)
            return
        place.failures = max(1, place.failures)
        yield SpawnDelayed(place.number, self._put_off(place, now))

    def _ready(self, worker: Worker, now: float) -> Iterator[Action]:
        if worker.phase is Phase.DRAINING:
            # What was sent while it booted may have been lost.
            yield Terminate(worker.pid)
        if worker.phase is not Phase.STARTED:
            return
        worker.phase = Phase.READY
        worker.ready_at = now
        worker.deadline = None
        if not self._listening:
            self._listening = True
            yield Listen()
        ready = [w for w in self.workers.values() if w.phase is Phase.READY]
        if not self.announced and len(ready) == len(self._places):
            self.announced = True
            yield Announce()

    def _failed(self, worker: Worker, exit_code: int, now: float) -> Iterator[Action]:
        if worker.phase is Phase.DRAINING:
            return
        booting = worker.phase is Phase.STARTED
        worker.phase = Phase.DRAINING
        worker.deadline = now + KILL_GRACE
        if booting and not self.announced:
            report = ReportFailure(Cause.FAILED, worker.number, worker.pid)
            yield from self._give_up(report, boot_exit_code(exit_code), now)

    def _exited(self, worker: Worker, status: int, now: float) -> Iterator[Action]:
        del self.workers[worker.pid]
        if self.stopping:
            return
        if worker.ready_at is None and not self.announced:
            report = ReportFailure(Cause.EXITED, worker.number, worker.pid, status)
            yield from self._give_up(report, ExitCode.PROJECT, now)
            return
        place = self._places[worker.number]
        if worker.ready_at is not None and now - worker.ready_at >= HEALTHY_AFTER:
            place.failures = 0
        place.wanted_since = now
        yield Lost(worker.number, worker.pid, status, self._put_off(place, now))

    def _put_off(self, place: Place, now: float) -> float:
        delay = DELAYS[min(place.failures, len(DELAYS) - 1)]
        place.failures += 1
        place.due = now + delay
        return delay

    def _give_up(
        self, report: ReportFailure, exit_code: int, now: float
    ) -> Iterator[Action]:
        if not self.stopping:
            yield report
            yield from self._stop(now, exit_code)

    def _stop(self, now: float, exit_code: int) -> Iterator[Action]:
        if self.stopping:
            return
        self.stopping = True
        self._exit_code = exit_code
        for place in self._places.values():
            place.due = None
        yield CloseListeners()
        for worker in self.workers.values():
            yield from self._drain(worker, now)

    def _drain(self, worker: Worker, now: float) -> Iterator[Action]:
        if worker.phase is not Phase.DRAINING:
            worker.phase = Phase.DRAINING
            worker.deadline = now + self._stop_timeout
            yield Terminate(worker.pid)

    def _kill_all(self) -> Iterator[Action]:
        self._immediate = True
        for worker in self.workers.values():
            yield from self._kill(worker)

    def _kill(self, worker: Worker) -> Iterator[Action]:
        worker.deadline = None
        if not worker.killed:
            worker.killed = True
            yield Kill(worker.pid)

    def _due(self, now: float) -> Iterator[Action]:
        for worker in self.workers.values():
            if worker.deadline is not None and worker.deadline <= now:
                yield from self._overdue(worker, now)
        for place in self._places.values():
            if place.due is not None and place.due <= now:
                place.due = None
                place.spawning = True
                yield Spawn(place.number, self.generation)

    def _overdue(self, worker: Worker, now: float) -> Iterator[Action]:
        booting = worker.phase is Phase.STARTED
        worker.phase = Phase.DRAINING
        yield from self._kill(worker)
        if booting and not self.announced:
            report = ReportFailure(Cause.TIMEOUT, worker.number, worker.pid)
            yield from self._give_up(report, ExitCode.PROJECT, now)
        else:
            yield Overdue(worker.number, worker.pid, booting)


def boot_exit_code(exit_code: int) -> int:
    """The exit code of the program when a worker failed to boot with `exit_code`."""
    known = (ExitCode.USAGE, ExitCode.PROJECT, ExitCode.LISTEN)
    return exit_code if exit_code in known else ExitCode.PROJECT
