from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from time import monotonic
from types import SimpleNamespace
from typing import Any, cast

import pytest

from djasgi.options import Options
from djasgi.supervisor.board import ACTIVE, BEAT, TOTAL, Board
from djasgi.supervisor.liveness import BEATS
from djasgi.supervisor.worker import Channel, Stop
from djasgi.vitals import ASK_AGAIN, LOOKS, Vitals


class Worker:
    def __init__(self, total: int, **options: Any) -> None:
        self.told: list[dict[str, Any]] = []
        self.board = Board()
        stop = Stop(lambda: None)
        self.channel = Channel(self.told.append, stop, self.board, self.board.take())
        self.requests = SimpleNamespace(total=total, active=3)
        self.options = Options(**options)
        self.threads: Any = None

    def beats(
        self, number: int, after: Callable[[int], None] = lambda beat: None
    ) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            later: list[Any] = []
            loop.call_later = lambda *args: later.append(args)  # type: ignore[assignment,method-assign]  # the clock
            one = Vitals(
                self.channel,
                self.options,
                cast("Any", self.requests),
                cast("Any", self.threads),
            )
            for beat in range(number):
                one.beat()
                assert later == [(BEATS, one.beat)]
                later.clear()
                after(beat)
            del loop.call_later

        asyncio.run(main())
        os.close(self.board.descriptor)


def test_each_beat_writes_the_time_and_the_counts() -> None:
    worker = Worker(7)
    before = monotonic()

    worker.beats(1)

    slot = worker.channel.slot
    assert before <= slot[BEAT] <= monotonic()
    assert (slot[TOTAL], slot[ACTIVE]) == (7, 3)
    assert worker.told == []


def test_somebody_else_may_hear_the_beats() -> None:
    worker = Worker(0)
    heard: list[float] = []
    worker.channel.on_beat = heard.append

    worker.beats(2)

    assert len(heard) == 2


@pytest.mark.parametrize(
    ("options", "total", "reason"),
    [
        ({"max_requests": 7}, 7, "has served 7 requests"),
        ({"max_requests": 7}, 6, None),
        ({"max_requests": 0}, 10**9, None),
        ({"max_worker_lifetime": 1e-9}, 0, "is older than 1e-09 s"),
        ({"max_worker_lifetime": 3600.0}, 0, None),
        ({"max_worker_memory": 2**20}, 0, "MiB of memory, more than 1 MiB"),
        ({"max_worker_memory": 2**40}, 0, None),
    ],
)
def test_a_limit_that_is_reached_asks_for_a_successor(
    options: dict[str, Any], total: int, reason: str | None
) -> None:
    worker = Worker(total, **options)

    worker.beats(LOOKS)

    assert [message["type"] for message in worker.told] == ["retire"] * bool(reason)
    assert not reason or worker.told[0]["reason"].endswith(reason)


def test_it_is_asked_again_because_one_that_boots_is_not_heard() -> None:
    worker = Worker(1, max_requests=1)

    worker.beats(2 * ASK_AGAIN)

    assert len(worker.told) == 2


def test_the_jitter_differs_from_worker_to_worker() -> None:
    reached = set()
    for _ in range(10):
        worker = Worker(0, max_requests=1, max_requests_jitter=1000)
        limits: list[int] = []

        def count(
            beat: int, worker: Worker = worker, limits: list[int] = limits
        ) -> None:
            worker.requests.total += 1
            if worker.told and not limits:
                limits.append(beat)

        worker.beats(1010, count)
        assert limits[0] <= 1001
        reached.add(limits[0])

    assert len(reached) > 1


@pytest.mark.parametrize(
    ("timeout", "told"),
    [(3.0, [(0, 3.0), (5, 4.0)]), (4.0, [(2, 4.0), (5, 4.0)]), (0.0, []), (9.0, [])],
)
def test_stuck_threads_are_told_once_until_they_go_on(
    timeout: float, told: list[tuple[int, float]]
) -> None:
    worker = Worker(0, hang_timeout=timeout)
    seconds = [3.0, 3.5, 4.0, 4.5, 0.0, 4.0, 4.5]
    worker.threads = SimpleNamespace(
        threads=2, leases=5, waiting=3, stuck=lambda: seconds[len(heard)]
    )
    heard: list[int] = []
    found: list[tuple[int, float]] = []

    def after(beat: int) -> None:
        heard.append(beat)
        for message in worker.told:
            assert (message["type"], message["threads"]) == ("stuck", 2)
            assert message["waiting"] == 3
            found.append((beat, message["seconds"]))
        worker.told.clear()

    worker.beats(len(seconds), after)

    assert found == told
