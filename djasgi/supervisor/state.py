"""What the supervisor decides: events in, actions out; no processes and no clock.

A generation is the workers of one state of the code. Its code is prepared, then each of
its N places gets a worker, which is started, ready, draining, and then gone. Until every
place of the first generation was ready at the same time the supervisor has not announced
itself, and whatever does not boot ends the program. After that a worker that is lost is
replaced, at first at once and then with a growing delay.

A reload is a second generation beside the first: when all its workers are ready, it
serves, and those of the first drain. When one of them does not get ready, it is the
second that goes.

Times are seconds of any clock that only goes forward; they come with the events.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from djasgi.errors import ExitCode
from djasgi.supervisor.events import (
    Action,
    Announce,
    CancelCheck,
    Cause,
    Check,
    Checked,
    CloseListeners,
    Discard,
    Dump,
    Event,
    Exit,
    Exited,
    Failed,
    Hung,
    Kill,
    Listen,
    ListenFailed,
    Listening,
    Lost,
    NotReady,
    Overdue,
    PreloaderGone,
    Prepare,
    Prepared,
    PrepareFailed,
    Ready,
    Reexecute,
    ReloadAborted,
    Reloaded,
    ReloadFailed,
    ReloadRequested,
    ReportFailure,
    Resumed,
    RetireRequested,
    Retiring,
    Scale,
    Scaled,
    Spared,
    Spawn,
    SpawnDelayed,
    Spawned,
    SpawnFailed,
    Started,
    StopRequested,
    Stuck,
    Terminate,
    Tick,
)

KILL_GRACE = 5.0
"""Seconds between the end of the graceful timeout and the kill."""

DUMP_GRACE = 0.4
"""Seconds that a hung worker has to write its stacks, before it is killed."""

HEALTHY_AFTER = 30.0
"""A worker that was ready for so many seconds clears the failures of its place."""

DELAYS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds before the next worker, by the number of failures before this one."""

MOST_WORKERS = 512


class Phase(Enum):
    STARTED = "started"
    READY = "ready"
    DRAINING = "draining"


class Reload(Enum):
    """How far a reload has come; the incoming generation is the part after these."""

    CHECKING = "checking"
    CHECKED = "checked"
    EXECUTING = "executing"


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
    dismissed: bool = False
    """It ends because it was told to, so nobody has to take its place."""
    leaving: str = ""
    """Why a successor is wanted for it."""
    stuck: float | None = None
    """When it is killed for its silence, unless it is spared."""


@dataclass(slots=True)
class Place:
    """One of the N places: taken by a worker, being filled, or due at a time."""

    number: int
    due: float | None = None
    wanted_since: float = 0.0
    failures: int = 0


@dataclass(slots=True)
class Generation:
    """The workers of one state of the code."""

    number: int
    places: dict[int, Place] = field(default_factory=dict)
    prepared: bool = False
    listening: bool = False
    deadline: float | None = None
    """Until when its code may be loading; None when it is not."""


class Machine:
    """The state of the supervisor. `drain_delay` and the timeouts are seconds."""

    def __init__(
        self,
        workers: int,
        *,
        boot_timeout: float,
        graceful_timeout: float,
        hang_timeout: float = 0.0,
        drain_delay: float = 0.0,
    ) -> None:
        self.announced = False
        self.stopping = False
        self.exited = False
        self.workers: dict[int, Worker] = {}
        self.serving = _generation(1, workers)
        self.incoming: Generation | None = None
        self.reload: Reload | None = None
        self._spawns: dict[tuple[int, int], float] = {}
        """Generation and number of those asked for, and until when to wait."""
        self._boot_timeout = boot_timeout
        self._stop_timeout = graceful_timeout + KILL_GRACE
        self._hang_timeout = hang_timeout
        self._drain_delay = drain_delay
        self._exit_code: int = ExitCode.STOPPED
        self._immediate = False
        self._again = False
        self._reload_deadline: float | None = None
        self._newest = 1
        self._stop_at: float | None = None
        self._last_hang: float | None = None

    @property
    def generation(self) -> int:
        """The number of the generation that serves."""
        return self.serving.number

    @property
    def state(self) -> str:
        """In one word what this instance is doing."""
        if self.stopping or self._stop_at is not None:
            return "stopping"
        if not self.announced:
            return "starting"
        return "reloading" if self.reloading else "serving"

    @property
    def reloading(self) -> bool:
        return self.reload is not None or self.incoming is not None

    @property
    def most_workers(self) -> int:
        """How many may be alive at most: one generation beside another, and one more.

        Those that drain count: a reload right after another waits for their end.
        """
        sizes = [len(generation.places) for generation in self._generations()]
        return 2 * max(sizes) + 1

    def on(self, event: Event, now: float) -> list[Action]:
        """What to do about `event`, in order."""
        if self.exited:
            return []
        actions = [
            *self._react(event, now),
            *self._replace_next(now),
            *self._due(now),
        ]
        if isinstance(event, Tick):
            # Nothing else has happened that was not told: it would be lost.
            actions += self._reexecute_when_quiet()
        if self.stopping and not self.workers and not self._spawns:
            self.exited = True
            actions.append(Exit(self._exit_code))
        return actions

    def deadline(self) -> float | None:
        """When the next Tick is needed, if nothing happens before."""
        times = [self._reload_deadline, self._stop_at, *self._spawns.values()]
        for worker in self.workers.values():
            times += [worker.deadline, worker.stuck]
        for generation in self._generations():
            times.append(generation.deadline)
            loading = generation.deadline is not None
            if not (loading or (generation.prepared and self._is_full())):
                times += [place.due for place in generation.places.values()]
        return min((time for time in times if time is not None), default=None)

    def snapshot(self) -> dict[str, Any]:
        """What `resumed` needs, as JSON: for the hand-over to the next supervisor."""
        workers = [asdict(worker) for worker in self.workers.values()]
        for worker in workers:
            worker["phase"] = worker["phase"].value
        return {
            "workers": workers,
            "generation": self.serving.number,
            "prepared": self.serving.prepared,
            "places": [asdict(place) for place in self.serving.places.values()],
            "newest": self._newest,
            "again": self._again,
            "last_hang": self._last_hang,
        }

    @classmethod
    def resumed(cls, snapshot: dict[str, Any], **timeouts: float) -> Machine:
        """The machine of a supervisor that has taken over; all its workers serve on."""
        machine = cls(0, **timeouts)
        machine.announced = True
        machine.reload = Reload.EXECUTING
        for worker in snapshot["workers"]:
            phase = Phase(worker["phase"])
            machine.workers[worker["pid"]] = Worker(**{**worker, "phase": phase})
        machine.serving = Generation(
            snapshot["generation"],
            {place["number"]: Place(**place) for place in snapshot["places"]},
            prepared=snapshot["prepared"],
            listening=True,
        )
        machine._newest = snapshot["newest"]
        machine._again = snapshot["again"]
        machine._last_hang = snapshot["last_hang"]
        return machine

    def _generations(self) -> list[Generation]:
        return [self.serving, *([self.incoming] if self.incoming else [])]

    def _find(self, number: int) -> Generation | None:
        return next((g for g in self._generations() if g.number == number), None)

    def _place(self, worker: Worker) -> Place | None:
        generation = self._find(worker.generation)
        return generation.places.get(worker.number) if generation else None

    def _is_full(self) -> bool:
        return len(self.workers) + len(self._spawns) >= self.most_workers

    def _is_spawning(self, generation: Generation, place: Place) -> bool:
        return (generation.number, place.number) in self._spawns

    def _in_place(self, number: int, generation: int) -> list[Worker]:
        """The workers in a place that were not told to end."""
        return [
            worker
            for worker in self.workers.values()
            if (worker.number, worker.generation) == (number, generation)
            and not worker.dismissed
        ]

    def _others(self, worker: Worker) -> list[Worker]:
        """Those in the same place that were not told to end."""
        mates = self._in_place(worker.number, worker.generation)
        return [other for other in mates if other is not worker]

    def _react(self, event: Event, now: float) -> Iterator[Action]:
        match event:
            case Started():
                yield from self._prepare(self.serving, now)
            case Resumed(workers):
                yield from self._resume(workers, now)
            case Prepared(number):
                yield from self._prepared(number, now)
            case PrepareFailed(number):
                yield from self._prepare_failed(number, event, now)
            case PreloaderGone(number):
                self._preloader_gone(number)
            case Spawned(number, generation, pid):
                yield from self._spawned(number, generation, pid, now)
            case SpawnFailed():
                yield from self._spawn_failed(event, now)
            case StopRequested(immediate):
                yield from self._stop_requested(now, immediate=immediate)
            case Listening(number):
                yield from self._listening(number, now)
            case ListenFailed(exit_code):
                yield from self._listen_failed(exit_code, now)
            case Ready(pid) if pid in self.workers:
                yield from self._ready(self.workers[pid], now)
            case Failed(pid, exit_code) if pid in self.workers:
                yield from self._failed(self.workers[pid], exit_code, now)
            case Exited(pid, status) if pid in self.workers:
                yield from self._exited(self.workers[pid], status, now)
            case RetireRequested(pid, reason) if pid in self.workers:
                self._retire(self.workers[pid], reason)
            case Hung(pid) if pid in self.workers:
                yield from self._hung(self.workers[pid], now)
            case Spared(pid) if pid in self.workers:
                self._spared(self.workers[pid])
            case ReloadRequested():
                yield from self._reload_requested(now)
            case Checked():
                self._checked()
            case ReloadAborted():
                yield from self._reload_fails(ReloadFailed(Cause.REFUSED), now)
            case Scale(by):
                yield from self._scale(by, now)
            case _:
                pass

    # Preparing

    def _prepare(self, generation: Generation, now: float) -> Iterator[Action]:
        generation.prepared = False
        generation.deadline = now + self._boot_timeout
        yield Prepare(generation.number)

    def _prepared(self, number: int, now: float) -> Iterator[Action]:
        generation = self._find(number)
        if generation is None or self.stopping:
            yield Discard(number)
            return
        generation.prepared = True
        generation.deadline = None
        for place in generation.places.values():
            if self._is_empty(generation, place):
                place.due = place.wanted_since = now

    def _is_empty(self, generation: Generation, place: Place) -> bool:
        return (
            place.due is None
            and not self._is_spawning(generation, place)
            and not self._in_place(place.number, generation.number)
        )

    def _prepare_failed(
        self, number: int, event: PrepareFailed, now: float
    ) -> Iterator[Action]:
        generation = self._find(number)
        if generation is None or generation.deadline is None or self.stopping:
            return
        cause = Cause.FAILED if event.status is None else Cause.EXITED
        yield from self._not_prepared(
            generation, cause, event.status, event.exit_code, now
        )

    def _not_prepared(
        self,
        generation: Generation,
        cause: Cause,
        status: int | None,
        exit_code: int,
        now: float,
    ) -> Iterator[Action]:
        generation.deadline = None
        if generation is self.incoming:
            yield from self._roll_back(ReloadFailed(cause, status=status), now)
        elif not self.announced:
            report = ReportFailure(cause, 0, status=status)
            yield from self._give_up(report, boot_exit_code(exit_code), now)
        else:
            for place in generation.places.values():
                if place.due is not None and place.due <= now:
                    place.failures = max(1, place.failures)
                    yield SpawnDelayed(place.number, self._put_off(place, now))

    def _preloader_gone(self, number: int) -> None:
        generation = self._find(number)
        if generation is not None:
            generation.prepared = False

    # Spawning

    def _spawned(
        self, number: int, generation_number: int, pid: int, now: float
    ) -> Iterator[Action]:
        worker = Worker(
            number, generation_number, pid, Phase.STARTED, now + self._boot_timeout
        )
        self.workers[pid] = worker
        self._spawns.pop((generation_number, number), None)
        if self._place(worker) is None or self.stopping:
            yield from self._drain(worker, now)
        if self._immediate:
            yield from self._kill(worker)

    def _spawn_failed(self, event: SpawnFailed, now: float) -> Iterator[Action]:
        self._spawns.pop((event.generation, event.number), None)
        generation = self._find(event.generation)
        place = generation.places.get(event.number) if generation else None
        if generation is None or place is None or self.stopping:
            return
        late = now - place.wanted_since >= self._boot_timeout
        first = generation is self.serving and not self.announced
        if first and (event.lasting or late):
            report = ReportFailure(Cause.SPAWN, place.number)
            yield from self._give_up(report, event.exit_code, now)
        elif generation is self.incoming and (event.lasting or late):
            yield from self._roll_back(ReloadFailed(Cause.SPAWN, place.number), now)
        else:
            place.failures = max(1, place.failures)
            yield SpawnDelayed(place.number, self._put_off(place, now))

    def _put_off(self, place: Place, now: float) -> float:
        delay = DELAYS[min(place.failures, len(DELAYS) - 1)]
        place.failures += 1
        place.due = now + delay
        return delay

    # Workers

    def _ready(self, worker: Worker, now: float) -> Iterator[Action]:
        if worker.phase is Phase.DRAINING:
            # What was sent while it booted may have been lost.
            yield Terminate(worker.pid)
            if worker.ready_at is None and worker.deadline is not None:
                # It may have taken requests: it has as long for them as the others.
                worker.ready_at = now
                worker.deadline += self._stop_timeout - KILL_GRACE
        if worker.phase is not Phase.STARTED:
            return
        generation = self._find(worker.generation)
        worker.phase = Phase.READY
        worker.ready_at = now
        worker.deadline = None
        if generation is None:
            return
        if not generation.listening:
            yield Listen(generation.number)
        for other in self._others(worker):
            yield from self._drain(other, now)
        yield from self._complete(generation, now)

    def _listening(self, number: int, now: float) -> Iterator[Action]:
        generation = self._find(number)
        if generation is not None:
            generation.listening = True
            yield from self._complete(generation, now)

    def _complete(self, generation: Generation, now: float) -> Iterator[Action]:
        """What follows when every place of `generation` has a worker that serves."""
        ready = {
            worker.number
            for worker in self._all_of(generation)
            if worker.phase is Phase.READY
        }
        if not generation.listening or not ready.issuperset(generation.places):
            return
        if self.stopping:
            return
        if generation is self.incoming:
            yield from self._switch(now)
        elif not self.announced:
            self.announced = True
            yield Announce()
            yield from self._reload_if_wanted(now)

    def _all_of(self, generation: Generation) -> list[Worker]:
        number = generation.number
        return [w for w in self.workers.values() if w.generation == number]

    def _failed(self, worker: Worker, exit_code: int, now: float) -> Iterator[Action]:
        if worker.phase is Phase.DRAINING:
            return
        booting = worker.phase is Phase.STARTED
        worker.phase = Phase.DRAINING
        worker.deadline = now + KILL_GRACE
        yield from self._boot_failed(
            worker, Cause.FAILED, None, exit_code, now, booting
        )

    def _boot_failed(
        self,
        worker: Worker,
        cause: Cause,
        status: int | None,
        exit_code: int,
        now: float,
        booting: bool,
    ) -> Generator[Action, None, bool]:
        """End the program, or the reload, if it was `worker` they were waiting for.

        Returns whether that was so.
        """
        generation = self._find(worker.generation)
        if not booting or generation is None or self.stopping:
            return False
        if generation is self.incoming:
            report = ReloadFailed(cause, worker.number, worker.pid, status)
            yield from self._roll_back(report, now)
            return True
        if not self.announced:
            failure = ReportFailure(cause, worker.number, worker.pid, status)
            yield from self._give_up(failure, boot_exit_code(exit_code), now)
            return True
        return False

    def _exited(self, worker: Worker, status: int, now: float) -> Iterator[Action]:
        del self.workers[worker.pid]
        place = self._place(worker)
        if self.stopping or worker.dismissed or place is None:
            return
        ready_at = worker.ready_at
        booting = ready_at is None
        repeated = self._find(worker.generation) is self.incoming and place.failures > 0
        waited_for = yield from self._boot_failed(
            worker, Cause.EXITED, status, ExitCode.PROJECT, now, booting or repeated
        )
        if waited_for:
            return
        if ready_at is not None and now - ready_at >= HEALTHY_AFTER:
            place.failures = 0
        place.wanted_since = now
        if (worker.generation, worker.number) in self._spawns or any(
            other.phase is not Phase.DRAINING and not other.leaving
            for other in self._others(worker)
        ):
            place.failures += 1
            delay = None
        else:
            delay = self._put_off(place, now)
        yield Lost(worker.number, worker.pid, status, delay, place.failures)

    def _retire(self, worker: Worker, reason: str) -> None:
        if worker.phase is Phase.READY and not worker.leaving:
            worker.leaving = reason

    def _replace_next(self, now: float) -> Iterator[Action]:
        """Start the successor of one worker that is to leave; one at a time."""
        if self.stopping or self.reloading or not self.announced:
            return
        leaving = [
            worker
            for worker in self.workers.values()
            if worker.leaving and worker.phase is Phase.READY
        ]
        for worker in leaving:
            place = self._place(worker)
            if place is None or self._is_awaited(worker, place):
                return
        for worker in leaving[:1]:
            place = self._place(worker)
            assert place is not None, "the loop above has looked"  # noqa: S101
            place.due = place.wanted_since = now
            yield Retiring(worker.number, worker.pid, worker.leaving)

    def _is_awaited(self, worker: Worker, place: Place) -> bool:
        spawning = (worker.generation, worker.number) in self._spawns
        return place.due is not None or spawning or bool(self._others(worker))

    def _hung(self, worker: Worker, now: float) -> Iterator[Action]:
        recent = (
            self._last_hang is not None and now - self._last_hang < self._hang_timeout
        )
        known = worker.stuck is not None or worker.killed
        if known or worker.phase is Phase.STARTED or recent:
            return
        self._last_hang = now
        worker.stuck = now + DUMP_GRACE
        yield Dump(worker.pid)

    def _spared(self, worker: Worker) -> None:
        if worker.stuck is not None:
            worker.stuck = None
            self._last_hang = None

    def _scale(self, by: int, now: float) -> Iterator[Action]:
        if self.stopping or not self.announced:
            return
        before = len(self.serving.places)
        for generation in self._generations():
            count = min(max(len(generation.places) + by, 1), MOST_WORKERS)
            for number in range(len(generation.places) + 1, count + 1):
                generation.places[number] = Place(number, due=now, wanted_since=now)
            for number in range(len(generation.places), count, -1):
                del generation.places[number]
                for worker in self._all_of(generation):
                    if worker.number == number:
                        yield from self._drain(worker, now)
        if len(self.serving.places) != before:
            yield Scaled(len(self.serving.places))
        if self.incoming is not None:
            yield from self._complete(self.incoming, now)

    # Reloading

    def _reload_requested(self, now: float) -> Iterator[Action]:
        if self.stopping or self._stop_at is not None:
            return
        if self.reloading or not self.announced:
            self._again = True
            return
        self.reload = Reload.CHECKING
        self._reload_deadline = now + self._boot_timeout
        yield Check()

    def _checked(self) -> None:
        if self.reload is Reload.CHECKING:
            self.reload = Reload.CHECKED
            self._reload_deadline = None

    def _reexecute_when_quiet(self) -> Iterator[Action]:
        """What was asked of somebody and not answered would be lost in the hand-over."""
        asked = bool(self._spawns) or self.serving.deadline is not None
        stuck = any(worker.stuck is not None for worker in self.workers.values())
        if self.reload is Reload.CHECKED and not asked and not stuck:
            self.reload = Reload.EXECUTING
            yield Reexecute()

    def _resume(self, workers: int, now: float) -> Iterator[Action]:
        self.reload = None
        self._newest += 1
        self.incoming = _generation(self._newest, workers)
        yield from self._prepare(self.incoming, now)

    def _switch(self, now: float) -> Iterator[Action]:
        assert self.incoming is not None, "only the incoming generation switches"  # noqa: S101
        before, self.serving = self.serving, self.incoming
        self.incoming = None
        yield Reloaded()
        for worker in self.workers.values():
            if worker.generation == before.number:
                yield from self._drain(worker, now)
        yield Discard(before.number)
        yield from self._reload_if_wanted(now)

    def _roll_back(self, report: ReloadFailed, now: float) -> Iterator[Action]:
        assert self.incoming is not None, "only the incoming generation goes back"  # noqa: S101
        failed = self.incoming
        self.incoming = None
        yield report
        yield Discard(failed.number)
        for worker in self._all_of(failed):
            yield from self._drain(worker, now)
        yield from self._reload_if_wanted(now)

    def _reload_fails(self, report: ReloadFailed, now: float) -> Iterator[Action]:
        """Before anything of the new code was started."""
        if self.reload is not None:
            self.reload = None
            self._reload_deadline = None
            yield report
            yield from self._reload_if_wanted(now)

    def _reload_if_wanted(self, now: float) -> Iterator[Action]:
        if self._again:
            self._again = False
            yield from self._reload_requested(now)

    # Stopping

    def _listen_failed(self, exit_code: int, now: float) -> Iterator[Action]:
        if self.incoming is not None:
            yield from self._roll_back(ReloadFailed(Cause.LISTEN), now)
        else:
            report = ReportFailure(Cause.LISTEN, number=0)
            yield from self._give_up(report, exit_code, now)

    def _give_up(
        self, report: ReportFailure, exit_code: int, now: float
    ) -> Iterator[Action]:
        if not self.stopping:
            yield report
            yield from self._stop(now, exit_code)

    def _stop_requested(self, now: float, *, immediate: bool) -> Iterator[Action]:
        if self._drain_delay and self.announced and not immediate and not self.stopping:
            if self._stop_at is None:
                self._stop_at = now + self._drain_delay
                yield from self._cancel_check()
                yield NotReady()
            return
        yield from self._stop(now, ExitCode.STOPPED)
        if immediate:
            yield from self._kill_all()

    def _stop(self, now: float, exit_code: int) -> Iterator[Action]:
        if self.stopping:
            return
        self.stopping = True
        self._exit_code = exit_code
        self._stop_at = None
        self._again = False
        yield from self._cancel_check()
        yield CloseListeners()
        for generation in self._generations():
            generation.deadline = None
            for place in generation.places.values():
                place.due = None
            yield Discard(generation.number)
        for worker in self.workers.values():
            yield from self._drain(worker, now)

    def _cancel_check(self) -> Iterator[Action]:
        self._reload_deadline = None
        if self.reload is not None:
            self.reload = None
            yield CancelCheck()

    def _drain(self, worker: Worker, now: float) -> Iterator[Action]:
        worker.dismissed = True
        if worker.phase is not Phase.DRAINING:
            # Nobody waits for an answer of one that boots.
            booting = worker.phase is Phase.STARTED
            worker.deadline = now + (KILL_GRACE if booting else self._stop_timeout)
            worker.phase = Phase.DRAINING
            yield Terminate(worker.pid)

    def _kill_all(self) -> Iterator[Action]:
        self._immediate = True
        for worker in self.workers.values():
            yield from self._kill(worker)

    def _kill(self, worker: Worker) -> Iterator[Action]:
        worker.deadline = worker.stuck = None
        if not worker.killed:
            worker.killed = True
            yield Kill(worker.pid)

    # Deadlines

    def _due(self, now: float) -> Iterator[Action]:
        if self._stop_at is not None and self._stop_at <= now:
            yield from self._stop(now, ExitCode.STOPPED)
        if self._reload_deadline is not None and self._reload_deadline <= now:
            yield CancelCheck()
            yield from self._reload_fails(ReloadFailed(Cause.TIMEOUT), now)
        for worker in [*self.workers.values()]:
            if worker.stuck is not None and worker.stuck <= now:
                worker.phase = Phase.DRAINING
                yield from self._kill(worker)
                yield Stuck(worker.number, worker.pid)
            elif worker.deadline is not None and worker.deadline <= now:
                yield from self._overdue(worker, now)
        for generation in self._generations():
            yield from self._generation_due(generation, now)

    def _generation_due(self, generation: Generation, now: float) -> Iterator[Action]:
        if generation.deadline is not None and generation.deadline <= now:
            yield Discard(generation.number)
            yield from self._not_prepared(
                generation, Cause.TIMEOUT, None, ExitCode.PROJECT, now
            )
        mine = [t for (g, _), t in self._spawns.items() if g == generation.number]
        if mine and min(mine) <= now:
            # Whoever forks does not answer: it is started anew for the next try.
            generation.prepared = False
            yield Discard(generation.number)
        for place in generation.places.values():
            if place.due is None or place.due > now or self.stopping:
                continue
            if self._is_spawning(generation, place):
                place.due = None
            elif generation.prepared:
                if self._is_full():
                    break
                place.due = None
                spawn = (generation.number, place.number)
                self._spawns[spawn] = now + self._boot_timeout
                yield Spawn(place.number, generation.number)
            elif generation.deadline is None and self._find(generation.number):
                yield from self._prepare(generation, now)

    def _overdue(self, worker: Worker, now: float) -> Iterator[Action]:
        booting = worker.phase is Phase.STARTED
        worker.phase = Phase.DRAINING
        yield from self._kill(worker)
        waited_for = yield from self._boot_failed(
            worker, Cause.TIMEOUT, None, ExitCode.PROJECT, now, booting
        )
        if not waited_for:
            yield Overdue(worker.number, worker.pid, booting)


def _generation(number: int, workers: int) -> Generation:
    return Generation(number, {n: Place(n) for n in range(1, workers + 1)})


def boot_exit_code(exit_code: int) -> int:
    """The exit code of the program when a worker failed to boot with `exit_code`."""
    known = (ExitCode.USAGE, ExitCode.PROJECT, ExitCode.LISTEN)
    return exit_code if exit_code in known else ExitCode.PROJECT
