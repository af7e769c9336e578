"""What the supervisor decides: events in, actions out; no processes and no clock.

Until every place of the first generation was ready at the same time the supervisor has
not announced itself, and whatever does not boot ends the program. After that a worker
that is lost is replaced, at first at once and then with a growing delay. How one
generation takes the place of another is in `djasgi.supervisor.reload`.

Times are seconds of any clock that only goes forward; they come with the events.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

from djasgi.errors import ExitCode
from djasgi.supervisor.events import (
    Action,
    Announce,
    Cause,
    Checked,
    CloseListeners,
    Discard,
    Dump,
    Event,
    Exit,
    Exited,
    Failed,
    Hung,
    Listen,
    ListenFailed,
    Listening,
    Lost,
    NotReady,
    Overdue,
    PreloaderGone,
    Prepared,
    PrepareFailed,
    Ready,
    ReloadAborted,
    ReloadFailed,
    ReloadRequested,
    ReportFailure,
    Resumed,
    RetireRequested,
    Retiring,
    Scale,
    Scaled,
    Spared,
    SpawnDelayed,
    Spawned,
    SpawnFailed,
    Started,
    StopRequested,
    Stuck,
    Terminate,
    Tick,
)
from djasgi.supervisor.pool import KILL_GRACE, Generation, Phase, Place, Pool, Worker
from djasgi.supervisor.reload import Reload

DUMP_GRACE = 0.4
"""Seconds that a hung worker has to write its stacks, before it is killed."""

HEALTHY_AFTER = 30.0
"""A worker that was ready for so many seconds clears the failures of its place."""

MOST_WORKERS = 512


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
        self.pool = Pool(workers, boot_timeout=boot_timeout)
        self._reload = Reload(
            self.pool, boot_timeout=boot_timeout, graceful_timeout=graceful_timeout
        )
        self._boot_timeout = boot_timeout
        self._graceful_timeout = graceful_timeout
        self._hang_timeout = hang_timeout
        self._drain_delay = drain_delay
        self._exit_code: int = ExitCode.STOPPED
        self._immediate = False
        self._stop_at: float | None = None
        self._last_hang: float | None = None

    @property
    def generation(self) -> int:
        """The number of the generation that serves."""
        return self.pool.serving.number

    @property
    def state(self) -> str:
        """In one word what this instance is doing."""
        if self.stopping or self._stop_at is not None:
            return "stopping"
        if not self.announced:
            return "starting"
        return "reloading" if self._reload.active else "serving"

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
            actions += self._reload.reexecute_when_quiet()
        if self.stopping and not self.pool.workers and not self.pool.spawns:
            self.exited = True
            actions.append(Exit(self._exit_code))
        return actions

    def deadline(self) -> float | None:
        """When the next Tick is needed, if nothing happens before."""
        times = [self._reload.deadline, self._stop_at, *self.pool.deadlines()]
        return min((time for time in times if time is not None), default=None)

    def snapshot(self) -> dict[str, Any]:
        """What `resumed` needs, as JSON: for the hand-over to the next supervisor."""
        return {
            **self.pool.snapshot(),
            **self._reload.snapshot(),
            "last_hang": self._last_hang,
        }

    @classmethod
    def resumed(cls, snapshot: dict[str, Any], **timeouts: float) -> Machine:
        """The machine of a supervisor that has taken over; all its workers serve on."""
        machine = cls(0, **timeouts)
        machine.announced = True
        machine.pool.restore(snapshot)
        machine._reload.restore(snapshot)
        machine._last_hang = snapshot["last_hang"]
        return machine

    def _react(self, event: Event, now: float) -> Iterator[Action]:
        match event:
            case Started():
                yield from self.pool.prepare(self.pool.serving, now)
            case Resumed(workers):
                yield from self._reload.resume(workers, now)
            case Prepared(number):
                yield from self._prepared(number, now)
            case PrepareFailed(number):
                yield from self._prepare_failed(number, event, now)
            case PreloaderGone(number):
                self._preloader_gone(number)
            case Spawned():
                yield from self._spawned(event, now)
            case SpawnFailed():
                yield from self._spawn_failed(event, now)
            case StopRequested(immediate):
                yield from self._stop_requested(now, immediate=immediate)
            case Listening(number):
                yield from self._listening(number, now)
            case ListenFailed(exit_code):
                yield from self._listen_failed(exit_code, now)
            case Ready(pid) if pid in self.pool.workers:
                yield from self._ready(self.pool.workers[pid], now)
            case Failed(pid, exit_code) if pid in self.pool.workers:
                yield from self._failed(self.pool.workers[pid], exit_code, now)
            case Exited(pid, status) if pid in self.pool.workers:
                yield from self._exited(self.pool.workers[pid], status, now)
            case RetireRequested(pid, reason) if pid in self.pool.workers:
                self._retire(self.pool.workers[pid], reason)
            case Hung(pid) if pid in self.pool.workers:
                yield from self._hung(self.pool.workers[pid], now)
            case Spared(pid) if pid in self.pool.workers:
                self._spared(self.pool.workers[pid])
            case ReloadRequested():
                yield from self._reload.request(now, announced=self.announced)
            case Checked():
                self._reload.checked()
            case ReloadAborted():
                yield from self._reload.fail(ReloadFailed(Cause.REFUSED), now)
            case Scale(by):
                yield from self._scale(by, now)
            case _:
                pass

    # Preparing

    def _prepared(self, number: int, now: float) -> Iterator[Action]:
        generation = self.pool.find(number)
        if generation is None or self.stopping:
            yield Discard(number)
            return
        self.pool.prepared(generation, now)

    def _prepare_failed(
        self, number: int, event: PrepareFailed, now: float
    ) -> Iterator[Action]:
        generation = self.pool.find(number)
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
        if generation is self.pool.incoming:
            yield from self._reload.roll_back(ReloadFailed(cause, status=status), now)
        elif not self.announced:
            report = ReportFailure(cause, 0, status=status)
            yield from self._give_up(report, boot_exit_code(exit_code), now)
        else:
            for place in generation.places.values():
                if place.due is not None and place.due <= now:
                    place.failures = max(1, place.failures)
                    yield SpawnDelayed(place.number, place.put_off(now))

    def _preloader_gone(self, number: int) -> None:
        generation = self.pool.find(number)
        if generation is not None:
            generation.prepared = False

    # Spawning

    def _spawned(self, event: Spawned, now: float) -> Iterator[Action]:
        worker = self.pool.spawned(event.number, event.generation, event.pid, now)
        if self.pool.place_of(worker) is None or self.stopping:
            yield from self._drain(worker, now)
        if self._immediate:
            yield from worker.kill()

    def _spawn_failed(self, event: SpawnFailed, now: float) -> Iterator[Action]:
        self.pool.spawns.pop((event.generation, event.number), None)
        generation = self.pool.find(event.generation)
        place = generation.places.get(event.number) if generation else None
        if generation is None or place is None or self.stopping:
            return
        late = now - place.wanted_since >= self._boot_timeout
        first = generation is self.pool.serving and not self.announced
        if first and (event.lasting or late):
            report = ReportFailure(Cause.SPAWN, place.number)
            yield from self._give_up(report, event.exit_code, now)
        elif generation is self.pool.incoming and (event.lasting or late):
            yield from self._reload.roll_back(
                ReloadFailed(Cause.SPAWN, place.number), now
            )
        else:
            place.failures = max(1, place.failures)
            yield SpawnDelayed(place.number, place.put_off(now))

    # Workers

    def _ready(self, worker: Worker, now: float) -> Iterator[Action]:
        if worker.phase is Phase.DRAINING:
            # What was sent while it booted may have been lost.
            yield Terminate(worker.pid)
            if worker.ready_at is None and worker.deadline is not None:
                # It may have taken requests: it has as long for them as the others.
                worker.ready_at = now
                worker.deadline += self._graceful_timeout
        if worker.phase is not Phase.STARTED:
            return
        generation = self.pool.find(worker.generation)
        worker.phase = Phase.READY
        worker.ready_at = now
        worker.deadline = None
        if generation is None:
            return
        if not generation.listening:
            yield Listen(generation.number)
        for other in self.pool.others(worker):
            yield from self._drain(other, now)
        yield from self._complete(generation, now)

    def _listening(self, number: int, now: float) -> Iterator[Action]:
        generation = self.pool.find(number)
        if generation is not None:
            generation.listening = True
            yield from self._complete(generation, now)

    def _complete(self, generation: Generation, now: float) -> Iterator[Action]:
        """What follows when every place of `generation` has a worker that serves."""
        ready = {
            worker.number
            for worker in self.pool.workers_of(generation)
            if worker.phase is Phase.READY
        }
        if not generation.listening or not ready.issuperset(generation.places):
            return
        if self.stopping:
            return
        if generation is self.pool.incoming:
            yield from self._reload.switch(now)
        elif not self.announced:
            self.announced = True
            yield Announce()
            yield from self._reload.request_again(now)

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
        generation = self.pool.find(worker.generation)
        if not booting or generation is None or self.stopping:
            return False
        if generation is self.pool.incoming:
            report = ReloadFailed(cause, worker.number, worker.pid, status)
            yield from self._reload.roll_back(report, now)
            return True
        if not self.announced:
            failure = ReportFailure(cause, worker.number, worker.pid, status)
            yield from self._give_up(failure, boot_exit_code(exit_code), now)
            return True
        return False

    def _exited(self, worker: Worker, status: int, now: float) -> Iterator[Action]:
        del self.pool.workers[worker.pid]
        place = self.pool.place_of(worker)
        if self.stopping or worker.dismissed or place is None:
            return
        ready_at = worker.ready_at
        booting = ready_at is None
        repeated = (
            self.pool.find(worker.generation) is self.pool.incoming
            and place.failures > 0
        )
        waited_for = yield from self._boot_failed(
            worker, Cause.EXITED, status, ExitCode.PROJECT, now, booting or repeated
        )
        if waited_for:
            return
        if ready_at is not None and now - ready_at >= HEALTHY_AFTER:
            place.failures = 0
        place.wanted_since = now
        if (worker.generation, worker.number) in self.pool.spawns or any(
            other.phase is not Phase.DRAINING and not other.leaving
            for other in self.pool.others(worker)
        ):
            place.failures += 1
            delay = None
        else:
            delay = place.put_off(now)
        yield Lost(worker.number, worker.pid, status, delay, place.failures)

    def _retire(self, worker: Worker, reason: str) -> None:
        if worker.phase is Phase.READY and not worker.leaving:
            worker.leaving = reason

    def _replace_next(self, now: float) -> Iterator[Action]:
        """Start the successor of one worker that is to leave; one at a time."""
        if self.stopping or self._reload.active or not self.announced:
            return
        leaving = [
            worker
            for worker in self.pool.workers.values()
            if worker.leaving and worker.phase is Phase.READY
        ]
        for worker in leaving:
            place = self.pool.place_of(worker)
            if place is None or self.pool.has_successor(worker, place):
                return
        for worker in leaving[:1]:
            place = self.pool.place_of(worker)
            assert place is not None, "the loop above has looked"  # noqa: S101
            place.want(now)
            yield Retiring(worker.number, worker.pid, worker.leaving)

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
        before = len(self.pool.serving.places)
        for generation in self.pool.generations():
            count = min(max(len(generation.places) + by, 1), MOST_WORKERS)
            for number in range(len(generation.places) + 1, count + 1):
                generation.places[number] = Place(number, due=now, wanted_since=now)
            for number in range(len(generation.places), count, -1):
                del generation.places[number]
                for worker in self.pool.workers_of(generation):
                    if worker.number == number:
                        yield from self._drain(worker, now)
        if len(self.pool.serving.places) != before:
            yield Scaled(len(self.pool.serving.places))
        if self.pool.incoming is not None:
            yield from self._complete(self.pool.incoming, now)

    # Stopping

    def _listen_failed(self, exit_code: int, now: float) -> Iterator[Action]:
        if self.pool.incoming is not None:
            yield from self._reload.roll_back(ReloadFailed(Cause.LISTEN), now)
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
                yield from self._reload.close()
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
        yield from self._reload.close()
        yield CloseListeners()
        for generation in self.pool.generations():
            generation.deadline = None
            for place in generation.places.values():
                place.due = None
            yield Discard(generation.number)
        for worker in self.pool.workers.values():
            yield from self._drain(worker, now)

    def _drain(self, worker: Worker, now: float) -> Iterator[Action]:
        yield from worker.drain(now, self._graceful_timeout)

    def _kill_all(self) -> Iterator[Action]:
        self._immediate = True
        for worker in self.pool.workers.values():
            yield from worker.kill()

    # Deadlines

    def _due(self, now: float) -> Iterator[Action]:
        if self._stop_at is not None and self._stop_at <= now:
            yield from self._stop(now, ExitCode.STOPPED)
        yield from self._reload.due(now)
        for worker in [*self.pool.workers.values()]:
            if worker.stuck is not None and worker.stuck <= now:
                worker.phase = Phase.DRAINING
                yield from worker.kill()
                yield Stuck(worker.number, worker.pid)
            elif worker.deadline is not None and worker.deadline <= now:
                yield from self._overdue(worker, now)
        for generation in self.pool.generations():
            if generation.deadline is not None and generation.deadline <= now:
                yield Discard(generation.number)
                yield from self._not_prepared(
                    generation, Cause.TIMEOUT, None, ExitCode.PROJECT, now
                )
            yield from self.pool.fill(generation, now)

    def _overdue(self, worker: Worker, now: float) -> Iterator[Action]:
        booting = worker.phase is Phase.STARTED
        worker.phase = Phase.DRAINING
        yield from worker.kill()
        waited_for = yield from self._boot_failed(
            worker, Cause.TIMEOUT, None, ExitCode.PROJECT, now, booting
        )
        if not waited_for:
            yield Overdue(worker.number, worker.pid, booting)


def boot_exit_code(exit_code: int) -> int:
    """The exit code of the program when a worker failed to boot with `exit_code`."""
    known = (ExitCode.USAGE, ExitCode.PROJECT, ExitCode.LISTEN)
    return exit_code if exit_code in known else ExitCode.PROJECT
