"""Who is hung, told by a clock and beats that the test makes up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from djasgi.supervisor.board import BEAT, Board, Slot
from djasgi.supervisor.liveness import AGAIN, GAP, Liveness, is_paused
from tests.support.process import until

TIMEOUT = 10.0


class World:
    def __init__(self, timeout: float = TIMEOUT, workers: int = 1) -> None:
        self.paused: set[int] = set()
        self.liveness = Liveness(timeout, paused=self.paused.__contains__)
        board = Board()
        self.slots: dict[int, Slot] = {n: board.take() for n in range(1, workers + 1)}

    def beat(self, now: float, pid: int = 1) -> None:
        self.slots[pid][BEAT] = now

    def look(self, now: float) -> list[int]:
        return self.liveness.look(self.slots, now)

    def found_at(self, until: float) -> tuple[object, list[int]] | None:
        """When it looks as it wants to: the first time that somebody is hung."""
        while (now := self.liveness.next_look or 0) < until:
            if hung := self.look(now):
                return now, hung
        return None


def test_a_silent_worker_is_hung_after_the_timeout_and_a_second_look() -> None:
    world = World()
    world.beat(103)
    world.look(103.5)

    assert world.liveness.next_look == 103 + TIMEOUT
    assert world.look(103 + TIMEOUT) == []
    assert world.look(103 + TIMEOUT + AGAIN / 2) == []
    assert world.look(103 + TIMEOUT + AGAIN) == [1]
    assert world.look(103 + TIMEOUT + 2 * AGAIN) == [1], "until it is dealt with"


def test_one_that_answers_before_the_second_look_is_not() -> None:
    world = World()
    world.beat(100)
    world.look(100)
    assert world.look(110) == []
    world.beat(110.2)

    assert world.look(110 + AGAIN) == []
    assert world.liveness.next_look == 110.2 + TIMEOUT


@pytest.mark.parametrize("first_beat", [100.0, 100.1, 104.0, 109.9])
def test_it_is_found_in_time_whenever_it_began(first_beat: float) -> None:
    world = World()
    world.look(100)
    world.beat(first_beat)

    assert world.found_at(200) == (
        pytest.approx(first_beat + TIMEOUT + AGAIN, abs=0.01),
        [1],
    )


def test_one_that_has_not_beaten_is_booting() -> None:
    world = World()
    world.look(100)

    assert world.found_at(500) is None


def test_a_timeout_of_0_looks_at_nobody() -> None:
    world = World(timeout=0)
    world.beat(1)

    assert world.look(1000) == []
    assert world.liveness.next_look is None


def test_one_that_is_stopped_is_not_hung_and_has_time_when_it_goes_on() -> None:
    world = World()
    world.beat(100)
    world.paused.add(1)
    world.look(100)
    assert world.found_at(150) is None
    world.paused.clear()
    now = world.liveness.next_look
    assert now is not None

    assert world.look(now) == []
    world.beat(now + 0.1)
    assert world.look(now + AGAIN) == []


def test_one_that_is_spared_is_looked_at_again_after_its_next_beat() -> None:
    world = World(workers=2)
    world.beat(100)
    world.beat(1000, pid=2)
    world.look(100)
    assert world.found_at(200) == (pytest.approx(110.3), [1])
    world.liveness.spare(1, world.slots[1])
    assert world.found_at(500) is None

    world.beat(500)
    assert world.found_at(600) == (pytest.approx(510.3, abs=0.01), [1])


def test_when_this_process_was_asleep_all_clocks_start_anew() -> None:
    world = World()
    world.beat(100)
    world.look(100)

    assert world.look(5000) == []
    assert world.look(5000 + AGAIN) == []
    assert world.found_at(6000) == (pytest.approx(5000 + TIMEOUT + AGAIN), [1])


def test_a_little_late_is_not_asleep() -> None:
    world = World()
    world.beat(100)
    world.look(100)
    late = 100 + TIMEOUT + GAP
    world.look(late)

    assert world.look(late + AGAIN) == [1]


def test_a_process_that_is_stopped_is_paused() -> None:
    code = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert not is_paused(process.pid)
        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: is_paused(process.pid), "it is stopped")
        os.kill(process.pid, signal.SIGCONT)
        until(lambda: not is_paused(process.pid), "it goes on")
        process.kill()

    assert not is_paused(process.pid), "it is gone"
