"""Who is there: the generations, their places, and the workers in them.

A generation is the workers of one state of the code. Its code is prepared, then each of
its N places gets a worker, which is started, ready, draining, and then gone.

What it means that somebody has come or is gone is decided in `djasgi.supervisor.state`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from djasgi.supervisor.events import Action, Discard, Kill, Prepare, Spawn, Terminate

KILL_GRACE = 5.0
"""Seconds between the end of the graceful timeout and the kill."""

DELAYS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds before the next worker, by the number of failures before this one."""


class Phase(Enum):
    STARTED = "started"
    READY = "ready"
    DRAINING = "draining"


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

    def drain(self, now: float, graceful_timeout: float) -> Iterator[Action]:
        """Have it finish what it does, and end; nobody takes its place."""
        self.dismissed = True
        if self.phase is not Phase.DRAINING:
            # Nobody waits for an answer of one that boots.
            grace = 0.0 if self.phase is Phase.STARTED else graceful_timeout
            self.deadline = now + (grace + KILL_GRACE)
            self.phase = Phase.DRAINING
            yield Terminate(self.pid)

    def kill(self) -> Iterator[Action]:
        self.deadline = self.stuck = None
        if not self.killed:
            self.killed = True
            yield Kill(self.pid)


@dataclass(slots=True)
class Place:
    """One of the N places: taken by a worker, being filled, or due at a time."""

    number: int
    due: float | None = None
    wanted_since: float = 0.0
    failures: int = 0

    def want(self, now: float) -> None:
        """A worker is wanted here from now on."""
        self.due = self.wanted_since = now

    def put_off(self, now: float) -> float:
        """Try again after a delay, which it returns and which grows each time."""
        delay = DELAYS[min(self.failures, len(DELAYS) - 1)]
        self.failures += 1
        self.due = now + delay
        return delay


@dataclass(slots=True)
class Generation:
    """The workers of one state of the code."""

    number: int
    places: dict[int, Place] = field(default_factory=dict)
    prepared: bool = False
    listening: bool = False
    deadline: float | None = None
    """Until when its code may be loading; None when it is not."""

    @classmethod
    def of(cls, number: int, workers: int) -> Generation:
        """One with so many places, for which nothing was done yet."""
        return cls(number, {n: Place(n) for n in range(1, workers + 1)})


class Pool:
    """The generation that serves, and beside it, during a reload, the incoming one."""

    def __init__(self, workers: int, *, boot_timeout: float) -> None:
        self.workers: dict[int, Worker] = {}
        self.serving = Generation.of(1, workers)
        self.incoming: Generation | None = None
        self.spawns: dict[tuple[int, int], float] = {}
        """Generation and number of those asked for, and until when to wait."""
        self._boot_timeout = boot_timeout

    @property
    def most_workers(self) -> int:
        """How many may be alive at most: one generation beside another, and one more.

        Those that drain count: a reload right after another waits for their end.
        """
        sizes = [len(generation.places) for generation in self.generations()]
        return 2 * max(sizes) + 1

    def is_full(self) -> bool:
        return len(self.workers) + len(self.spawns) >= self.most_workers

    def is_quiet(self) -> bool:
        """Whether nobody was asked for anything that he has not answered yet."""
        asked = bool(self.spawns) or self.serving.deadline is not None
        return not asked and all(w.stuck is None for w in self.workers.values())

    # Who is where

    def generations(self) -> list[Generation]:
        return [self.serving, *([self.incoming] if self.incoming else [])]

    def find(self, number: int) -> Generation | None:
        return next((g for g in self.generations() if g.number == number), None)

    def place_of(self, worker: Worker) -> Place | None:
        generation = self.find(worker.generation)
        return generation.places.get(worker.number) if generation else None

    def workers_of(self, generation: Generation) -> list[Worker]:
        number = generation.number
        return [w for w in self.workers.values() if w.generation == number]

    def in_place(self, number: int, generation: int) -> list[Worker]:
        """The workers in a place that were not told to end."""
        return [
            worker
            for worker in self.workers.values()
            if (worker.number, worker.generation) == (number, generation)
            and not worker.dismissed
        ]

    def others(self, worker: Worker) -> list[Worker]:
        """Those in the same place that were not told to end."""
        mates = self.in_place(worker.number, worker.generation)
        return [other for other in mates if other is not worker]

    def has_successor(self, worker: Worker, place: Place) -> bool:
        """Whether another one is there for the place of `worker`, or is to come."""
        spawning = (worker.generation, worker.number) in self.spawns
        return place.due is not None or spawning or bool(self.others(worker))

    def _is_spawning(self, generation: Generation, place: Place) -> bool:
        return (generation.number, place.number) in self.spawns

    def _is_empty(self, generation: Generation, place: Place) -> bool:
        return (
            place.due is None
            and not self._is_spawning(generation, place)
            and not self.in_place(place.number, generation.number)
        )

    # How places are filled

    def prepare(self, generation: Generation, now: float) -> Iterator[Action]:
        """Have the code of `generation` loaded."""
        generation.prepared = False
        generation.deadline = now + self._boot_timeout
        yield Prepare(generation.number)

    def prepared(self, generation: Generation, now: float) -> None:
        """The code of `generation` is loaded: workers are wanted in empty places."""
        generation.prepared = True
        generation.deadline = None
        for place in generation.places.values():
            if self._is_empty(generation, place):
                place.want(now)

    def fill(self, generation: Generation, now: float) -> Iterator[Action]:
        """Ask for the workers of `generation` that are due, or for its code."""
        mine = [t for (g, _), t in self.spawns.items() if g == generation.number]
        if mine and min(mine) <= now:
            # Whoever forks does not answer: it is started anew for the next try.
            generation.prepared = False
            yield Discard(generation.number)
        for place in generation.places.values():
            if place.due is None or place.due > now:
                continue
            if self._is_spawning(generation, place):
                place.due = None
            elif generation.prepared:
                if self.is_full():
                    break
                place.due = None
                spawn = (generation.number, place.number)
                self.spawns[spawn] = now + self._boot_timeout
                yield Spawn(place.number, generation.number)
            elif generation.deadline is None and self.find(generation.number):
                yield from self.prepare(generation, now)

    def spawned(self, number: int, generation: int, pid: int, now: float) -> Worker:
        """The worker that was asked for is there, and boots."""
        worker = Worker(
            number, generation, pid, Phase.STARTED, now + self._boot_timeout
        )
        self.workers[pid] = worker
        self.spawns.pop((generation, number), None)
        return worker

    def deadlines(self) -> Iterator[float | None]:
        """When something of this is late, or due."""
        yield from self.spawns.values()
        for worker in self.workers.values():
            yield from (worker.deadline, worker.stuck)
        for generation in self.generations():
            yield generation.deadline
            loading = generation.deadline is not None
            if not (loading or (generation.prepared and self.is_full())):
                yield from (place.due for place in generation.places.values())

    # The next supervisor

    def snapshot(self) -> dict[str, Any]:
        """What `restore` needs, as JSON: there is no incoming generation then."""
        workers = [asdict(worker) for worker in self.workers.values()]
        for worker in workers:
            worker["phase"] = worker["phase"].value
        return {
            "workers": workers,
            "generation": self.serving.number,
            "prepared": self.serving.prepared,
            "places": [asdict(place) for place in self.serving.places.values()],
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go on with those of the supervisor before, who all serve on."""
        for worker in snapshot["workers"]:
            phase = Phase(worker["phase"])
            self.workers[worker["pid"]] = Worker(**{**worker, "phase": phase})
        self.serving = Generation(
            snapshot["generation"],
            {place["number"]: Place(**place) for place in snapshot["places"]},
            prepared=snapshot["prepared"],
            listening=True,
        )
