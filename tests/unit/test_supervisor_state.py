from __future__ import annotations

import json
from collections import deque
from typing import Any

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

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
from djasgi.supervisor.pool import DELAYS, KILL_GRACE, Phase
from djasgi.supervisor.state import DUMP_GRACE, HEALTHY_AFTER, MOST_WORKERS, Machine

BOOT = 60.0
GRACEFUL = 20.0
HANG = 30.0
STOP = GRACEFUL + KILL_GRACE
TIMEOUTS = {"boot_timeout": BOOT, "graceful_timeout": GRACEFUL, "hang_timeout": HANG}


def machine_of(workers: int, drain_delay: float = 0.0) -> Machine:
    return Machine(workers, **TIMEOUTS, drain_delay=drain_delay)


def prepared(workers: int = 2, drain_delay: float = 0.0) -> Machine:
    machine = machine_of(workers, drain_delay)
    machine.on(Started(), 0)
    machine.on(Prepared(1), 0)
    return machine


def booting(workers: int = 2, drain_delay: float = 0.0) -> Machine:
    """A machine at time 0 whose workers have the pids 101, 102 and so on."""
    machine = prepared(workers, drain_delay)
    for number in range(1, workers + 1):
        machine.on(Spawned(number, 1, 100 + number), 0)
    return machine


def serving(workers: int = 2, drain_delay: float = 0.0) -> Machine:
    machine = booting(workers, drain_delay)
    for pid in [*machine.pool.workers]:
        machine.on(Ready(pid), 0)
    machine.on(Listening(1), 0)
    return machine


def reexecuting(machine: Machine, now: float) -> Machine:
    machine.on(ReloadRequested(), now)
    machine.on(Checked(), now)
    assert machine.on(Tick(), now) == [Reexecute()]
    return machine


def handed_over(machine: Machine, drain_delay: float = 0.0) -> Machine:
    snapshot = json.loads(json.dumps(machine.snapshot()))
    return Machine.resumed(snapshot, **TIMEOUTS, drain_delay=drain_delay)


def everything(machine: Machine) -> dict[str, Any]:
    """All that a machine knows, to be compared."""
    reload = {name: v for name, v in vars(machine._reload).items() if name != "_pool"}
    return {**vars(machine), "pool": vars(machine.pool), "_reload": reload}


def reloading(
    workers: int = 2, new: int | None = None, drain_delay: float = 0.0
) -> Machine:
    """At time 10, after the exec; the code of generation 2 is being loaded."""
    before = reexecuting(serving(workers, drain_delay), 10)
    machine = handed_over(before, drain_delay)
    assert machine.on(Resumed(new or workers), 10) == [Prepare(2)]
    return machine


def overlapping(workers: int = 2, new: int | None = None) -> Machine:
    """At time 10; the workers of generation 2 are 201, 202 and so on, and boot."""
    machine = reloading(workers, new)
    machine.on(Prepared(2), 10)
    for number in range(1, (new or workers) + 1):
        machine.on(Spawned(number, 2, 200 + number), 10)
    return machine


class TestBoot:
    def test_the_code_is_loaded_and_then_every_place_is_filled(self) -> None:
        machine = machine_of(3)

        assert machine.on(Started(), 0) == [Prepare(1)]
        assert machine.on(Prepared(1), 1) == [Spawn(1, 1), Spawn(2, 1), Spawn(3, 1)]
        assert machine.state == "starting"

    def test_it_listens_with_the_first_and_announces_with_the_last(self) -> None:
        machine = booting(3)

        assert machine.on(Ready(102), 1) == [Listen(1)]
        assert machine.on(Listening(1), 1) == []
        assert machine.on(Ready(102), 1) == []
        assert machine.on(Ready(101), 2) == []
        assert machine.on(Ready(103), 3) == [Announce()]
        assert machine.state == "serving"

    def test_nothing_is_announced_before_the_sockets_listen(self) -> None:
        machine = booting(1)

        assert machine.on(Ready(101), 1) == [Listen(1)]
        assert machine.on(Listening(1), 1) == [Announce()]

    def test_a_replacement_that_becomes_ready_announces_nothing(self) -> None:
        machine = serving(1)
        machine.on(Exited(101, -9), 10)
        machine.on(Spawned(1, 1, 201), 10)

        assert machine.on(Ready(201), 11) == []

    @pytest.mark.parametrize(
        ("said", "code"), [(1, 3), (2, 2), (3, 3), (4, 4), (0, 3), (-1, 3), (99, 3)]
    )
    def test_a_failure_before_the_announcement_stops_with_its_exit_code(
        self, said: int, code: int
    ) -> None:
        machine = booting(2)

        assert machine.on(Failed(102, said), 1) == [
            ReportFailure(Cause.FAILED, 2, 102),
            CloseListeners(),
            Discard(1),
            Terminate(101),
        ]
        assert machine.on(Failed(101, 4), 1) == []
        assert machine.on(Exited(102, said), 1) == []
        assert machine.on(Exited(101, 0), 1) == [Exit(code)]

    def test_a_worker_that_says_it_failed_and_does_not_end_is_killed(self) -> None:
        machine = booting(1)
        machine.on(Failed(101, 3), 1)

        assert machine.deadline() == 1 + KILL_GRACE
        assert machine.on(Tick(), 1 + KILL_GRACE) == [Kill(101), Overdue(1, 101, False)]

    def test_an_exit_before_ready_stops_with_exit_code_3(self) -> None:
        machine = booting(2)
        machine.on(Ready(101), 1)

        assert machine.on(Exited(102, -11), 1) == [
            ReportFailure(Cause.EXITED, 2, 102, -11),
            CloseListeners(),
            Discard(1),
            Terminate(101),
        ]
        assert machine.on(Exited(101, 0), 1) == [Exit(3)]

    def test_a_worker_lost_after_ready_and_before_the_announcement_is_replaced(
        self,
    ) -> None:
        machine = booting(2)
        machine.on(Ready(101), 1)

        assert machine.on(Exited(101, -9), 2) == [Lost(1, 101, -9, 0), Spawn(1, 1)]

    def test_a_boot_that_takes_too_long_is_killed_and_reported_once(self) -> None:
        machine = booting(2)
        machine.on(Ready(102), 1)

        assert machine.deadline() == BOOT
        assert machine.on(Tick(), BOOT) == [
            Kill(101),
            ReportFailure(Cause.TIMEOUT, 1, 101),
            CloseListeners(),
            Discard(1),
            Terminate(102),
        ]
        assert machine.on(Exited(102, 0), 61) == []
        assert machine.on(Exited(101, -9), 61) == [Exit(3)]

    def test_a_failure_to_listen_stops_with_its_exit_code(self) -> None:
        machine = booting(2)
        machine.on(Ready(101), 1)

        assert machine.on(ListenFailed(4), 1) == [
            ReportFailure(Cause.LISTEN, 0),
            CloseListeners(),
            Discard(1),
            Terminate(101),
            Terminate(102),
        ]
        machine.on(Exited(101, 0), 1)
        assert machine.on(Exited(102, 0), 1) == [Exit(4)]

    def test_news_of_an_unknown_process_is_ignored(self) -> None:
        machine = serving(1)

        for event in (
            Ready(7),
            Failed(7, 3),
            Exited(7, 0),
            RetireRequested(7, "is old"),
            Hung(7),
            Spared(7),
            PreloaderGone(7),
            Listening(7),
        ):
            assert machine.on(event, 1) == []


class TestPreparing:
    @pytest.mark.parametrize(
        ("event", "report", "code"),
        [
            (PrepareFailed(1, 2), ReportFailure(Cause.FAILED, 0), 2),
            (PrepareFailed(1, 99), ReportFailure(Cause.FAILED, 0), 3),
            (
                PrepareFailed(1, status=-9),
                ReportFailure(Cause.EXITED, 0, status=-9),
                3,
            ),
        ],
    )
    def test_code_that_does_not_load_ends_the_program(
        self, event: PrepareFailed, report: ReportFailure, code: int
    ) -> None:
        machine = machine_of(2)
        machine.on(Started(), 0)

        assert machine.on(event, 1) == [
            report,
            CloseListeners(),
            Discard(1),
            Exit(code),
        ]

    def test_code_that_loads_too_long_ends_the_program(self) -> None:
        machine = machine_of(2)
        machine.on(Started(), 0)

        assert machine.deadline() == BOOT
        assert machine.on(Tick(), BOOT) == [
            Discard(1),
            ReportFailure(Cause.TIMEOUT, 0),
            CloseListeners(),
            Discard(1),
            Exit(3),
        ]

    def test_its_process_may_go_and_is_made_anew_for_the_next_worker(self) -> None:
        machine = serving(2)

        assert machine.on(PreloaderGone(1), 5) == []
        assert machine.on(PrepareFailed(1, status=-9), 5) == []
        assert machine.deadline() is None
        lost = machine.on(Exited(102, -9), 6)
        assert lost == [Lost(2, 102, -9, 0), Prepare(1)]
        assert machine.on(Exited(101, -9), 7) == [Lost(1, 101, -9, 0)]
        assert machine.deadline() == 6 + BOOT
        assert machine.on(Prepared(1), 8) == [Spawn(1, 1), Spawn(2, 1)]

    @pytest.mark.parametrize(
        ("event", "now", "before"),
        [
            (PrepareFailed(1), 9, []),
            (PrepareFailed(1, status=1), 9, []),
            (Tick(), 6 + BOOT, [Discard(1)]),
        ],
    )
    def test_code_that_does_not_load_any_more_is_tried_again(
        self, event: Event, now: float, before: list[Action]
    ) -> None:
        machine = serving(2)
        machine.on(PreloaderGone(1), 5)
        machine.on(Exited(102, -9), 6)

        assert machine.on(event, now) == [*before, SpawnDelayed(2, 0.5)]
        assert machine.deadline() == now + 0.5
        assert machine.on(Tick(), now + 0.5) == [Prepare(1)]

    def test_a_spawn_without_an_answer_has_its_process_made_anew(self) -> None:
        machine = serving(1)
        machine.on(Exited(101, -9), 10)

        assert machine.deadline() == 10 + BOOT
        assert machine.on(Tick(), 10 + BOOT) == [Discard(1)]
        failed = machine.on(SpawnFailed(1, 1, lasting=False), 10 + BOOT)
        assert failed == [SpawnDelayed(1, 0.5)]
        assert machine.on(Tick(), 10.5 + BOOT) == [Prepare(1)]

    def test_a_first_spawn_without_an_answer_ends_the_program(self) -> None:
        machine = prepared(1)

        assert machine.on(Tick(), BOOT) == [Discard(1)]
        assert machine.on(SpawnFailed(1, 1, lasting=False), BOOT) == [
            ReportFailure(Cause.SPAWN, 1),
            CloseListeners(),
            Discard(1),
            Exit(3),
        ]

    def test_code_that_is_loaded_while_stopping_is_not_wanted(self) -> None:
        machine = booting(1)
        machine.on(StopRequested(), 1)

        assert machine.on(Prepared(1), 2) == [Discard(1)]
        assert machine.on(Prepared(7), 2) == [Discard(7)]


class TestReplacing:
    def test_a_boot_that_takes_too_long_is_killed_and_tried_again(self) -> None:
        machine = serving(1)
        machine.on(Exited(101, 1), 10)
        machine.on(Spawned(1, 1, 201), 10)

        assert machine.on(Tick(), 10 + BOOT) == [Kill(201), Overdue(1, 201, True)]
        assert machine.on(Exited(201, -9), 71) == [Lost(1, 201, -9, 0.5, 2)]
        assert machine.deadline() == 71.5

    def test_a_worker_that_fails_to_boot_is_tried_again_later_and_later(self) -> None:
        machine = serving(1)
        now = 5.0
        pid = 101
        lost = []
        for _ in range(len(DELAYS) + 2):
            lost.append(machine.on(Exited(pid, 3), now)[0])
            assert isinstance(lost[-1], Lost)
            assert lost[-1].delay is not None
            now += lost[-1].delay
            machine.on(Tick(), now)
            pid += 100
            machine.on(Spawned(1, 1, pid), now)
            assert machine.on(Failed(pid, 3), now) == []

        delays = [one.delay for one in lost if isinstance(one, Lost)]
        assert delays == [*DELAYS, DELAYS[-1], DELAYS[-1]]
        crashes = [one.crashes for one in lost if isinstance(one, Lost)]
        assert crashes == [*range(1, len(lost) + 1)]

    def test_a_worker_that_served_long_enough_clears_the_failures(self) -> None:
        machine = serving(1)
        machine.on(Exited(101, 1), 1)
        machine.on(Spawned(1, 1, 201), 1)
        machine.on(Ready(201), 2)

        lost = machine.on(Exited(201, 1), 2 + HEALTHY_AFTER)

        assert lost == [Lost(1, 201, 1, 0), Spawn(1, 1)]

    def test_a_ready_worker_that_says_it_failed_is_replaced_when_gone(self) -> None:
        machine = serving(1)

        assert machine.on(Failed(101, 1), 5) == []
        assert machine.on(Tick(), 5 + KILL_GRACE) == [Kill(101), Overdue(1, 101, False)]
        assert machine.on(Exited(101, -9), 11) == [Lost(1, 101, -9, 0), Spawn(1, 1)]

    def test_a_lasting_failure_to_spawn_the_first_ones_ends_at_once(self) -> None:
        machine = prepared(2)
        machine.on(Spawned(1, 1, 101), 0)

        assert machine.on(SpawnFailed(2, 1, lasting=True, exit_code=4), 0) == [
            ReportFailure(Cause.SPAWN, 2),
            CloseListeners(),
            Discard(1),
            Terminate(101),
        ]
        assert machine.on(Exited(101, 0), 0) == [Exit(4)]

    def test_a_passing_failure_to_spawn_is_tried_again_until_the_boot_timeout(
        self,
    ) -> None:
        machine = prepared(1)

        failed = machine.on(SpawnFailed(1, 1, lasting=False), 0)
        assert failed == [SpawnDelayed(1, 0.5)]
        assert machine.on(Tick(), 0.4) == []
        assert machine.on(Tick(), 0.5) == [Spawn(1, 1)]
        assert machine.on(SpawnFailed(1, 1, lasting=False), BOOT) == [
            ReportFailure(Cause.SPAWN, 1),
            CloseListeners(),
            Discard(1),
            Exit(3),
        ]

    def test_a_failure_to_spawn_a_replacement_never_ends_the_program(self) -> None:
        machine = serving(2)
        machine.on(Exited(101, 1), 10)

        actions = machine.on(SpawnFailed(1, 1, lasting=True), 10 + 2 * BOOT)

        assert actions == [SpawnDelayed(1, 0.5)]


class TestRetiring:
    def test_the_successor_is_ready_before_the_worker_is_told_to_end(self) -> None:
        machine = serving(1)

        assert machine.on(RetireRequested(101, "is old"), 5) == [
            Retiring(1, 101, "is old"),
            Spawn(1, 1),
        ]
        assert machine.on(RetireRequested(101, "is old"), 5) == []
        assert machine.on(Spawned(1, 1, 201), 5) == []
        assert machine.on(RetireRequested(101, "is old"), 5) == []
        assert machine.on(Ready(201), 6) == [Terminate(101)]
        assert machine.deadline() == 6 + STOP
        assert machine.on(Exited(101, 0), 7) == []
        assert machine.deadline() is None

    def test_one_at_a_time(self) -> None:
        machine = serving(3)

        first = machine.on(RetireRequested(102, "is old"), 5)
        assert first == [Retiring(2, 102, "is old"), Spawn(2, 1)]
        assert machine.on(RetireRequested(101, "is old"), 5) == []
        assert machine.on(RetireRequested(103, "is old"), 5) == []
        machine.on(Spawned(2, 1, 202), 5)
        assert machine.on(Ready(202), 6) == [
            Terminate(102),
            Retiring(1, 101, "is old"),
            Spawn(1, 1),
        ]
        machine.on(Spawned(1, 1, 201), 6)
        assert machine.on(Ready(201), 7) == [
            Terminate(101),
            Retiring(3, 103, "is old"),
            Spawn(3, 1),
        ]

    def test_a_successor_that_fails_is_tried_again_with_a_delay(self) -> None:
        machine = serving(2)
        machine.on(RetireRequested(101, "is old"), 5)
        machine.on(Spawned(1, 1, 201), 5)

        assert machine.on(Failed(201, 3), 6) == []
        assert machine.on(Exited(201, 3), 6) == [Lost(1, 201, 3, 0), Spawn(1, 1)]
        machine.on(Spawned(1, 1, 301), 6)
        assert machine.on(Failed(301, 3), 7) == []
        assert machine.on(Exited(301, 3), 7) == [Lost(1, 301, 3, 0.5, 2)]
        assert machine.on(Tick(), 7.5) == [Spawn(1, 1)]
        machine.on(Spawned(1, 1, 401), 8)
        assert machine.on(Ready(401), 8) == [Terminate(101)]

    def test_a_successor_that_does_not_end_delays_the_next(self) -> None:
        machine = serving(1)
        machine.on(RetireRequested(101, "is old"), 5)
        machine.on(Spawned(1, 1, 201), 5)

        overdue = machine.on(Tick(), 5 + BOOT)
        assert overdue == [Kill(201), Overdue(1, 201, True)]
        assert machine.on(Tick(), 6 + BOOT) == []

    def test_a_worker_that_dies_meanwhile_has_its_successor_on_the_way(self) -> None:
        machine = serving(1)
        machine.on(RetireRequested(101, "is old"), 5)

        assert machine.on(Exited(101, -9), 6) == [Lost(1, 101, -9, None)]
        assert machine.on(Spawned(1, 1, 201), 6) == []
        assert machine.on(Ready(201), 7) == []
        assert machine.deadline() is None

    def test_a_killed_worker_whose_successor_is_ready_gets_no_second_one(self) -> None:
        machine = serving(1)
        machine.on(RetireRequested(101, "is old"), 5)
        machine.on(Spawned(1, 1, 201), 5)
        machine.on(Hung(101), 6)
        machine.on(Tick(), 6 + DUMP_GRACE)

        assert machine.on(Ready(201), 7) == []
        assert machine.on(Exited(101, -9), 8) == []
        assert machine.deadline() is None

    def test_a_worker_that_boots_or_drains_is_not_retired(self) -> None:
        machine = booting(1)
        assert machine.on(RetireRequested(101, "is old"), 5) == []
        machine.on(StopRequested(), 6)
        assert machine.on(RetireRequested(101, "is old"), 6) == []

    def test_during_a_reload_it_waits_and_after_a_roll_back_it_happens(self) -> None:
        machine = overlapping(1)

        assert machine.on(RetireRequested(101, "is old"), 11) == []
        assert machine.on(Failed(201, 3), 12) == [
            ReloadFailed(Cause.FAILED, 1, 201),
            Discard(2),
            Retiring(1, 101, "is old"),
            Spawn(1, 1),
        ]


class TestHung:
    def test_the_stacks_are_asked_for_and_then_it_is_killed_and_replaced(self) -> None:
        machine = serving(2)

        assert machine.on(Hung(101), 50) == [Dump(101)]
        assert machine.on(Hung(101), 50.1) == []
        assert machine.deadline() == 50 + DUMP_GRACE
        assert machine.on(Tick(), 50 + DUMP_GRACE) == [Kill(101), Stuck(1, 101)]
        assert machine.on(Hung(101), 51) == []
        assert machine.on(Exited(101, -9), 51) == [Lost(1, 101, -9, 0), Spawn(1, 1)]

    def test_one_in_a_hang_window(self) -> None:
        machine = serving(2)
        machine.on(Hung(101), 50)

        assert machine.on(Hung(102), 50 + HANG - 0.1) == [Kill(101), Stuck(1, 101)]
        assert machine.on(Hung(102), 50 + HANG) == [Dump(102)]

    def test_one_that_a_debugger_holds_is_spared(self) -> None:
        machine = serving(2)
        machine.on(Hung(101), 50)

        assert machine.on(Spared(101), 50.2) == []
        assert machine.on(Tick(), 60) == []
        assert machine.deadline() is None
        assert machine.on(Hung(102), 60) == [Dump(102)]

    def test_too_late_to_be_spared(self) -> None:
        machine = serving(1)
        machine.on(Hung(101), 50)
        machine.on(Tick(), 51)

        assert machine.on(Spared(101), 51) == []
        assert machine.on(Exited(101, -9), 51) == [Lost(1, 101, -9, 0), Spawn(1, 1)]

    def test_a_boot_is_bounded_by_its_own_deadline(self) -> None:
        assert booting(1).on(Hung(101), 50) == []

    def test_a_worker_that_drains_is_killed_and_not_replaced(self) -> None:
        machine = serving(1)
        machine.on(RetireRequested(101, "is old"), 5)
        machine.on(Spawned(1, 1, 201), 5)
        machine.on(Ready(201), 6)

        assert machine.on(Hung(101), 7) == [Dump(101)]
        assert machine.on(Tick(), 8) == [Kill(101), Stuck(1, 101)]
        assert machine.on(Exited(101, -9), 8) == []

    def test_a_debugger_does_not_lengthen_the_stop(self) -> None:
        machine = serving(1)
        machine.on(StopRequested(), 50)
        machine.on(Hung(101), 60)
        machine.on(Spared(101), 60.1)

        assert machine.deadline() == 50 + STOP
        late = machine.on(Tick(), 50 + STOP)
        assert late == [Kill(101), Overdue(1, 101, False)]


class TestScaling:
    def test_one_more_and_one_less(self) -> None:
        machine = serving(1)

        assert machine.on(Scale(1), 5) == [Scaled(2), Spawn(2, 1)]
        machine.on(Spawned(2, 1, 102), 5)
        machine.on(Ready(102), 6)
        assert machine.on(Scale(-1), 7) == [Terminate(102), Scaled(1)]
        assert machine.on(Exited(102, 0), 8) == []
        assert machine.deadline() is None

    def test_never_below_one_nor_above_the_most(self) -> None:
        machine = serving(1)

        assert machine.on(Scale(-1), 5) == []
        assert machine.on(Scale(MOST_WORKERS), 5)[0] == Scaled(MOST_WORKERS)
        assert machine.on(Scale(1), 5) == []

    def test_not_before_the_announcement_nor_while_stopping(self) -> None:
        machine = booting(1)
        assert machine.on(Scale(1), 1) == []
        machine.on(StopRequested(), 2)
        assert machine.on(Scale(1), 2) == []

    def test_a_worker_asked_for_and_not_wanted_any_more_is_told_to_end(self) -> None:
        machine = serving(1)
        machine.on(Scale(1), 5)
        assert machine.on(Scale(-1), 5) == [Scaled(1)]

        assert machine.on(Spawned(2, 1, 102), 6) == [Terminate(102)]
        assert machine.on(Ready(102), 6) == [Terminate(102)]
        assert machine.on(Exited(102, 0), 7) == []

    def test_a_worker_asked_for_is_awaited_before_the_exit(self) -> None:
        machine = serving(1)
        machine.on(Scale(1), 5)
        machine.on(Scale(-1), 5)
        machine.on(StopRequested(), 6)

        assert machine.on(Exited(101, 0), 6) == []
        assert machine.on(Spawned(2, 1, 102), 7) == [Terminate(102)]
        assert machine.on(Exited(102, 0), 8) == [Exit(0)]

    def test_up_again_takes_the_worker_that_was_asked_for(self) -> None:
        machine = serving(1)
        machine.on(Scale(1), 5)
        machine.on(Scale(-1), 5)

        assert machine.on(Scale(1), 5) == [Scaled(2)]
        assert machine.on(Spawned(2, 1, 102), 6) == []
        assert machine.on(Ready(102), 6) == []
        assert machine.deadline() is None

    def test_during_a_reload_both_generations_change(self) -> None:
        machine = overlapping(1)

        assert machine.on(Scale(1), 11) == [Scaled(2), Spawn(2, 1), Spawn(2, 2)]
        machine.on(Spawned(2, 1, 102), 11)
        machine.on(Spawned(2, 2, 202), 11)
        assert machine.on(Ready(201), 12) == [Listen(2)]
        assert machine.on(Listening(2), 12) == []
        assert machine.on(Scale(-1), 13) == [
            Terminate(102),
            Terminate(202),
            Scaled(1),
            Reloaded(),
            Terminate(101),
            Discard(1),
        ]

    def test_before_the_new_code_is_loaded_it_waits_for_that(self) -> None:
        machine = reloading(1)

        assert machine.on(Scale(1), 11) == [Scaled(2), Spawn(2, 1)]
        assert machine.on(Prepared(2), 12) == [Spawn(1, 2), Spawn(2, 2)]


class TestReloading:
    def test_check_then_exec_then_a_second_generation_then_the_first_drains(
        self,
    ) -> None:
        machine = serving(2)
        assert machine.on(ReloadRequested(), 10) == [Check()]
        assert machine.state == "reloading"
        assert machine.on(Checked(), 10) == []
        assert machine.on(Tick(), 10) == [Reexecute()]
        assert machine.on(Tick(), 10) == []
        machine = handed_over(machine)
        assert machine.state == "reloading"
        assert machine.on(Resumed(3), 10) == [Prepare(2)]
        assert machine.on(Prepared(2), 11) == [Spawn(1, 2), Spawn(2, 2), Spawn(3, 2)]
        for pid in (1, 2, 3):
            assert machine.on(Spawned(pid, 2, pid), 11) == []
        assert machine.on(Ready(1), 12) == [Listen(2)]
        assert machine.on(Ready(2), 12) == [Listen(2)]
        assert machine.on(Listening(2), 12) == []
        assert machine.on(Listening(2), 12) == []
        assert machine.on(Ready(3), 13) == [
            Reloaded(),
            Terminate(101),
            Terminate(102),
            Discard(1),
        ]
        assert machine.generation == 2
        assert machine.state == "serving"
        assert machine.on(Exited(101, 0), 14) == []
        assert machine.on(Exited(102, 0), 14) == []
        assert machine.deadline() is None

    def test_a_new_address_that_is_taken_rolls_back_also_with_one_worker(self) -> None:
        machine = overlapping(1)

        assert machine.on(Ready(201), 11) == [Listen(2)]
        assert machine.on(ListenFailed(4), 11) == [
            ReloadFailed(Cause.LISTEN),
            Discard(2),
            Terminate(201),
        ]
        assert (machine.state, machine.generation) == ("serving", 1)

    def test_a_refused_check_changes_nothing(self) -> None:
        machine = serving(1)
        machine.on(ReloadRequested(), 10)

        assert machine.on(ReloadAborted(), 11) == [ReloadFailed(Cause.REFUSED)]
        assert machine.on(ReloadAborted(), 11) == []
        assert machine.on(Checked(), 11) == []
        assert machine.deadline() is None

    def test_a_check_that_takes_too_long_is_ended(self) -> None:
        machine = serving(1)
        machine.on(ReloadRequested(), 10)

        assert machine.deadline() == 10 + BOOT
        late = machine.on(Tick(), 10 + BOOT)
        assert late == [CancelCheck(), ReloadFailed(Cause.TIMEOUT)]
        assert machine.on(ReloadRequested(), 99) == [Check()]

    @pytest.mark.parametrize("again", [False, True])
    def test_an_exec_that_fails_goes_on(self, again: bool) -> None:
        machine = reexecuting(serving(1), 10)
        if again:
            machine.on(ReloadRequested(), 10)

        assert machine.on(ReloadAborted(), 10) == [
            ReloadFailed(Cause.REFUSED),
            *([Check()] if again else []),
        ]
        assert (machine.state == "serving") is not again

    def test_a_new_program_that_refuses_goes_on_with_the_old_workers(self) -> None:
        machine = handed_over(reexecuting(serving(1), 10))

        assert machine.on(ReloadAborted(), 11) == [ReloadFailed(Cause.REFUSED)]
        lost = machine.on(Exited(101, -9), 12)
        assert lost == [Lost(1, 101, -9, 0), Spawn(1, 1)]

    def test_what_is_awaited_comes_before_the_exec(self) -> None:
        machine = serving(2)
        machine.on(ReloadRequested(), 10)
        machine.on(Exited(101, -9), 10)
        machine.on(Checked(), 10)
        assert machine.on(Tick(), 11) == []
        machine.on(Spawned(1, 1, 201), 11)
        machine.on(Hung(102), 11)
        assert machine.on(Tick(), 11) == []
        machine.on(Spared(102), 11.2)
        machine.on(Exited(201, 1), 11.2)
        machine.on(PreloaderGone(1), 11.2)
        assert machine.on(Tick(), 11.7) == [Prepare(1)]
        assert machine.on(Tick(), 11.8) == []

        assert machine.on(PrepareFailed(1), 12) == [SpawnDelayed(1, 1.0)]
        assert machine.on(Tick(), 12) == [Reexecute()]

    def test_a_spawn_that_nobody_wants_any_more_also_comes_before_the_exec(
        self,
    ) -> None:
        machine = serving(1)
        machine.on(Scale(1), 10)
        machine.on(Scale(-1), 10)
        machine.on(ReloadRequested(), 10)
        machine.on(Checked(), 10)

        assert machine.on(Tick(), 10) == []

    def test_everything_that_counts_survives_the_exec(self) -> None:
        machine = serving(3)
        machine.on(Exited(102, 1), 1)
        machine.on(Spawned(2, 1, 202), 1)
        machine.on(Exited(202, 1), 2)
        machine.on(Failed(103, 1), 2.1)
        machine.on(Hung(101), 2.2)
        machine.on(Spared(101), 2.3)
        machine.on(RetireRequested(101, "is old"), 2.4)
        machine.on(Spawned(1, 1, 301), 2.4)
        reexecuting(machine, 2.4)
        machine.on(ReloadRequested(), 2.4)

        assert everything(handed_over(machine)) == everything(machine)

    @pytest.mark.parametrize(
        ("event", "now", "before", "report"),
        [
            (PrepareFailed(2, 2), 11, [], ReloadFailed(Cause.FAILED)),
            (
                PrepareFailed(2, status=-9),
                11,
                [],
                ReloadFailed(Cause.EXITED, status=-9),
            ),
            (Tick(), 10 + BOOT, [Discard(2)], ReloadFailed(Cause.TIMEOUT)),
        ],
    )
    def test_new_code_that_does_not_load_leaves_the_old(
        self, event: Event, now: float, before: list[Action], report: ReloadFailed
    ) -> None:
        machine = reloading(2)

        assert machine.on(event, now) == [*before, report, Discard(2)]
        assert machine.state == "serving"
        assert machine.on(Prepared(2), 80) == [Discard(2)]
        assert machine.deadline() is None

    @pytest.mark.parametrize(
        ("event", "now", "before", "report"),
        [
            (Failed(202, 3), 11, [], ReloadFailed(Cause.FAILED, 2, 202)),
            (Exited(202, -9), 11, [], ReloadFailed(Cause.EXITED, 2, 202, -9)),
            (
                Tick(),
                10 + BOOT,
                [Kill(202)],
                ReloadFailed(Cause.TIMEOUT, 2, 202),
            ),
        ],
    )
    def test_a_new_worker_that_does_not_boot_leaves_the_old_generation(
        self, event: Event, now: float, before: list[Action], report: ReloadFailed
    ) -> None:
        machine = overlapping(2)
        machine.on(Ready(201), 10)

        assert machine.on(event, now) == [
            *before,
            report,
            Discard(2),
            Terminate(201),
        ]
        assert (machine.state, machine.generation) == ("serving", 1)
        assert machine.on(Exited(201, 0), now) == []
        assert (
            machine.pool.workers[101].phase
            is machine.pool.workers[102].phase
            is Phase.READY
        )

    def test_what_boots_while_it_is_rolled_back_has_not_long_to_end(self) -> None:
        machine = overlapping(2)

        machine.on(Failed(202, 3), 11)

        assert machine.deadline() == 11 + KILL_GRACE
        assert machine.on(Tick(), 11 + KILL_GRACE) == [
            Kill(201),
            Overdue(1, 201, False),
            Kill(202),
            Overdue(2, 202, False),
        ]

    def test_a_new_worker_that_was_ready_may_be_lost_once(self) -> None:
        machine = overlapping(2)
        machine.on(Ready(201), 11)

        assert machine.on(Exited(201, -9), 12) == [Lost(1, 201, -9, 0), Spawn(1, 2)]
        machine.on(Spawned(1, 2, 301), 12)
        machine.on(Ready(301), 13)
        assert machine.on(Exited(301, -9), 14) == [
            ReloadFailed(Cause.EXITED, 1, 301, -9),
            Discard(2),
            Terminate(202),
        ]

    @pytest.mark.parametrize("lasting", [True, False])
    def test_new_workers_that_cannot_be_started_roll_back(self, lasting: bool) -> None:
        machine = reloading(1)
        machine.on(Prepared(2), 10)
        if not lasting:
            failed = machine.on(SpawnFailed(1, 2, lasting=False), 11)
            assert failed == [SpawnDelayed(1, 0.5)]
            assert machine.on(Tick(), 11.5) == [Spawn(1, 2)]

        assert machine.on(SpawnFailed(1, 2, lasting), 10 + BOOT * (not lasting)) == [
            ReloadFailed(Cause.SPAWN, 1),
            Discard(2),
        ]
        assert machine.deadline() is None

    def test_a_new_process_with_the_code_that_dies_is_made_anew(self) -> None:
        machine = reloading(1)
        machine.on(Prepared(2), 10)
        machine.on(PreloaderGone(2), 11)
        machine.on(SpawnFailed(1, 2, lasting=False), 11)

        assert machine.on(Tick(), 11.5) == [Prepare(2)]

    def test_requests_during_a_reload_are_one_more_afterwards(self) -> None:
        machine = serving(1)
        machine.on(ReloadRequested(), 10)
        for _ in range(3):
            assert machine.on(ReloadRequested(), 10) == []

        assert machine.on(ReloadAborted(), 11) == [
            ReloadFailed(Cause.REFUSED),
            Check(),
        ]
        assert machine.on(ReloadAborted(), 12) == [ReloadFailed(Cause.REFUSED)]

    def test_a_request_during_the_overlap_follows_the_switch(self) -> None:
        machine = overlapping(1)
        machine.on(ReloadRequested(), 11)
        machine.on(Ready(201), 12)

        assert machine.on(Listening(2), 12) == [
            Reloaded(),
            Terminate(101),
            Discard(1),
            Check(),
        ]

    def test_a_request_before_the_announcement_follows_it(self) -> None:
        machine = booting(1)
        assert machine.on(ReloadRequested(), 1) == []
        machine.on(Ready(101), 1)

        assert machine.on(Listening(1), 1) == [Announce(), Check()]

    def test_a_reload_right_after_another_waits_for_those_that_drain(self) -> None:
        machine = overlapping(2)
        machine.on(Ready(201), 11)
        machine.on(Ready(202), 11)
        machine.on(Listening(2), 11)
        machine = handed_over(reexecuting(machine, 12))
        machine.on(Resumed(2), 12)

        assert machine.on(Prepared(3), 12) == [Spawn(1, 3)]
        machine.on(Spawned(1, 3, 301), 12)
        assert machine.on(Tick(), 13) == []
        assert machine.deadline() == 11 + STOP
        assert machine.on(Exited(102, 0), 14) == [Spawn(2, 3)]

    @pytest.mark.parametrize("immediate", [False, True])
    @pytest.mark.parametrize(
        ("stage", "extra"),
        [
            ("checking", [CancelCheck()]),
            ("checked", [CancelCheck()]),
            ("executing", [CancelCheck()]),
            ("handed over", [CancelCheck()]),
            ("loading", []),
            ("overlapping", []),
            ("one ready", []),
            ("rolled back", []),
        ],
    )
    def test_a_stop_in_the_middle_stops_everything(
        self, stage: str, extra: list[Action], immediate: bool
    ) -> None:
        machine = serving(2)
        now = 12.0
        if stage in ("checking", "checked", "executing", "handed over"):
            machine.on(ReloadRequested(), 10)
        if stage in ("checked", "executing", "handed over"):
            machine.on(Checked(), 10)
        if stage in ("executing", "handed over"):
            machine.on(Tick(), 10)
        if stage == "handed over":
            machine = handed_over(machine)
        if stage == "loading":
            machine = reloading(2)
        if stage in ("overlapping", "one ready", "rolled back"):
            machine = overlapping(2)
        if stage == "one ready":
            machine.on(Ready(201), 10)
        if stage == "rolled back":
            machine.on(Failed(201, 3), 10)
        alive = [*machine.pool.workers]
        told = {201, 202} if stage == "rolled back" else set()
        generations = 1 if machine.pool.incoming is None else 2
        machine.on(ReloadRequested(), now)

        actions = machine.on(StopRequested(immediate), now)

        assert [a for a in actions if not isinstance(a, Discard)] == [
            *([CancelCheck()] if stage == "rolled back" else extra),
            CloseListeners(),
            *(Terminate(pid) for pid in alive if pid not in told),
            *(Kill(pid) for pid in alive if immediate),
        ]
        assert len([a for a in actions if isinstance(a, Discard)]) == generations
        for pid in alive[1:]:
            assert machine.on(Exited(pid, 0), now) == []
        assert machine.on(Exited(alive[0], 0), now) == [Exit(0)]


class TestStopping:
    def test_it_terminates_once_and_kills_at_the_deadline(self) -> None:
        machine = serving(2)

        stop = [CloseListeners(), Discard(1), Terminate(101), Terminate(102)]
        assert machine.on(StopRequested(), 10) == stop
        assert machine.state == "stopping"
        assert machine.on(StopRequested(), 11) == []
        assert machine.on(ReloadRequested(), 11) == []
        assert machine.on(Exited(101, 0), 12) == []
        assert machine.deadline() == 10 + STOP
        late = machine.on(Tick(), 10 + STOP)
        assert late == [Kill(102), Overdue(2, 102, False)]
        assert machine.on(Tick(), 11 + STOP) == []
        assert machine.on(Exited(102, -9), 11 + STOP) == [Exit(0)]

    def test_a_worker_that_becomes_ready_is_told_again(self) -> None:
        machine = booting(1)
        machine.on(StopRequested(), 1)

        assert machine.deadline() == 1 + KILL_GRACE
        assert machine.on(Ready(101), 2) == [Terminate(101)]
        assert machine.on(Ready(101), 2) == [Terminate(101)]
        assert machine.deadline() == 1 + STOP

    def test_an_immediate_one_kills_each_worker_once(self) -> None:
        machine = serving(1)
        machine.on(StopRequested(), 1)

        assert machine.on(StopRequested(immediate=True), 2) == [Kill(101)]
        assert machine.on(StopRequested(immediate=True), 3) == []
        assert machine.on(Exited(101, -9), 3) == [Exit(0)]

    def test_a_worker_spawned_meanwhile_is_stopped_as_well(self) -> None:
        machine = prepared(2)
        machine.on(StopRequested(), 1)

        assert machine.on(Spawned(1, 1, 101), 1) == [Terminate(101)]
        machine.on(StopRequested(immediate=True), 1)
        assert machine.on(Spawned(2, 1, 102), 1) == [Terminate(102), Kill(102)]
        machine.on(Exited(101, -9), 2)
        assert machine.on(Exited(102, -9), 2) == [Exit(0)]

    def test_a_spawn_that_fails_meanwhile_is_not_repeated(self) -> None:
        machine = prepared(1)

        assert machine.on(StopRequested(), 1) == [CloseListeners(), Discard(1)]
        assert machine.on(SpawnFailed(1, 1, lasting=False), 1) == [Exit(0)]
        assert machine.on(Tick(), 2) == []

    def test_the_exit_code_is_that_of_the_first_reason_to_end(self) -> None:
        machine = booting(1)
        machine.on(StopRequested(), 1)

        assert machine.on(Failed(101, 4), 1) == []
        assert machine.on(ListenFailed(4), 1) == []
        assert machine.on(Exited(101, 4), 1) == [Exit(0)]

    def test_readiness_ends_a_while_before_everything_else(self) -> None:
        machine = serving(1, drain_delay=3)

        assert machine.on(StopRequested(), 10) == [NotReady()]
        assert machine.state == "stopping"
        assert machine.deadline() == 13
        assert machine.on(StopRequested(), 11) == []
        assert machine.on(ReloadRequested(), 11) == []
        lost = machine.on(Exited(101, -9), 12)
        assert lost == [Lost(1, 101, -9, 0), Spawn(1, 1)]
        machine.on(Spawned(1, 1, 201), 12)
        stop = [CloseListeners(), Discard(1), Terminate(201)]
        assert machine.on(Tick(), 13) == stop

    def test_an_immediate_one_does_not_wait_for_the_drain_delay(self) -> None:
        machine = serving(1, drain_delay=3)
        machine.on(StopRequested(), 10)

        assert machine.on(StopRequested(immediate=True), 11) == [
            CloseListeners(),
            Discard(1),
            Terminate(101),
            Kill(101),
        ]

    def test_nobody_waits_for_the_drain_delay_before_the_announcement(self) -> None:
        machine = booting(1, drain_delay=3)

        assert machine.on(StopRequested(), 1)[0] == CloseListeners()

    @pytest.mark.parametrize("checked", [False, True])
    def test_the_drain_delay_ends_a_reload_before_its_exec(self, checked: bool) -> None:
        machine = serving(1, drain_delay=3)
        machine.on(ReloadRequested(), 10)
        if checked:
            machine.on(Checked(), 10)

        assert machine.on(StopRequested(), 10) == [CancelCheck(), NotReady()]
        assert machine.on(Checked(), 11) == []
        assert machine.on(Tick(), 11) == []
        assert machine.on(Tick(), 13)[0] == CloseListeners()

    def test_the_drain_delay_outlives_a_switch(self) -> None:
        machine = reloading(1, drain_delay=3)
        machine.on(Prepared(2), 10)
        machine.on(Spawned(1, 2, 201), 10)
        assert machine.on(StopRequested(), 11) == [NotReady()]
        machine.on(Ready(201), 12)
        machine.on(Listening(2), 12)

        stop = [CloseListeners(), Discard(2), Terminate(201)]
        assert machine.on(Tick(), 14) == stop


class Histories(RuleBasedStateMachine):
    """Random histories of everything that a supervisor and its world can do.

    This is the shell without processes: it answers late, or never, where the real one
    may, and asserts of each action what must be true of it.
    """

    @initialize(
        workers=st.integers(1, 3),
        drain_delay=st.sampled_from([0.0, 3.0]),
        boots=st.sampled_from([True, True, True, True, False]),
    )
    def start(self, workers: int, drain_delay: float, boots: bool) -> None:
        self.machine = machine_of(workers, drain_delay)
        self.drain_delay = drain_delay
        self.now = 0.0
        self.next_pid = 1
        self.wanted = workers
        self.exec_ends = "resumed"
        self.listening = True
        self.listened: set[int] = set()
        self.events: deque[Event] = deque()
        self.pending: list[tuple[int, int]] = []
        self.loading: set[int] = set()
        self.loaded: set[int] = set()
        self.checking = False
        self.alive: dict[int, tuple[int, int]] = {}
        self.ready: set[int] = set()
        """Those that serve: ready, not failed, and not told to end."""
        self.killed: set[int] = set()
        self.told: set[int] = set()
        self.stopped_at: float | None = None
        self.closed = False
        self.exits: list[int] = []
        self.announced = self.failures = 0
        self.burst: dict[tuple[int, int], int] = {}
        self.feed(Started())
        if boots:
            self.all_goes_well()
            assert self.announced

    # The shell

    def feed(self, *events: Event) -> None:
        self.events.extend(events)
        while self.events:
            event = self.events.popleft()
            before, losses = self.serving_ready(), 0
            if isinstance(event, Listening):
                self.listened.add(event.generation)
            if isinstance(event, Exited | Failed):
                losses += event.pid in self.ready
                self.ready.discard(event.pid)
            actions = self.machine.on(event, self.now)
            if isinstance(event, Ready) and event.pid in self.alive:
                worker = self.machine.pool.workers[event.pid]
                if worker.phase is Phase.READY:
                    self.ready.add(event.pid)
            losses += sum(isinstance(a, Stuck) and a.pid in self.ready for a in actions)
            for index, action in enumerate(actions):
                self.carry_out(action, last=index == len(actions) - 1)
            if not (isinstance(event, Scale) or self.closed):
                size = len(self.machine.pool.serving.places)
                assert self.serving_ready() >= min(before - losses, size)

    def serving_ready(self) -> int:
        generation = self.machine.generation
        return sum(self.alive[pid][1] == generation for pid in self.ready)

    def carry_out(self, action: Action, *, last: bool) -> None:
        assert not self.exits, "nothing is done after the exit"
        match action:
            case Prepare(generation):
                assert not self.closed
                assert generation not in self.loading
                self.loading.add(generation)
                self.loaded.discard(generation)
            case Discard(generation):
                self.loading.discard(generation)
                self.loaded.discard(generation)
                for spawn in [s for s in self.pending if s[1] == generation]:
                    self.pending.remove(spawn)
                    self.events.append(SpawnFailed(*spawn, lasting=False))
            case Spawn(number, generation):
                self.spawn(number, generation)
            case Terminate(pid) | Kill(pid) | Dump(pid):
                assert pid in self.alive, "signals go to live children only"
                if isinstance(action, Dump):
                    assert self.machine.pool.workers[pid].phase is not Phase.STARTED
                else:
                    self.ready.discard(pid)
                    self.told.add(pid)
                if isinstance(action, Kill):
                    assert pid not in self.killed, "once"
                    self.killed.add(pid)
            case Listen(generation):
                answer = Listening(generation) if self.listening else ListenFailed(4)
                self.events.append(answer)
            case Check():
                assert not self.checking
                self.checking = True
            case CancelCheck():
                self.checking = False
            case Reexecute():
                assert last
                self.reexecute()
            case Announce() | Reloaded():
                self.announced += isinstance(action, Announce)
                assert self.announced == 1
                assert self.serving_ready() == len(self.machine.pool.serving.places)
                assert self.machine.generation in self.listened
            case ReloadFailed():
                assert self.announced
                assert not self.closed
            case ReportFailure():
                self.failures += 1
                assert self.failures == 1
                assert not self.closed
            case CloseListeners():
                assert not self.closed
                self.closed = True
                if self.stopped_at is None:
                    self.stopped_at = self.now
            case Exit(code):
                assert not any((self.alive, self.pending, self.loading, self.checking))
                assert bool(code) == bool(self.failures)
                self.exits.append(code)
            case Lost() | SpawnDelayed():
                assert not self.closed
            case Retiring():
                assert not self.machine._reload.active
            case Scaled(workers):
                assert 1 <= workers == len(self.machine.pool.serving.places)

    def spawn(self, number: int, generation: int) -> None:
        assert not self.closed
        assert (
            generation in self.loaded or self.machine.pool.serving.number == generation
        )
        assert (number, generation) not in self.pending
        self.pending.append((number, generation))
        assert len(self.alive) + len(self.pending) <= self.machine.pool.most_workers
        place = (number, generation)
        # Without anything that serves between, delays keep it from spinning.
        self.burst[place] = self.burst.get(place, 0) + 1
        assert self.burst[place] <= 2

    def reexecute(self) -> None:
        assert not any((self.events, self.pending, self.checking))
        assert not self.machine.stopping
        if self.exec_ends == "failed":
            self.events.append(ReloadAborted())
            return
        assert self.stopped_at is None
        twin = handed_over(self.machine, self.drain_delay)
        assert everything(twin) == everything(self.machine)
        self.machine = twin
        resumed = self.exec_ends == "resumed"
        self.events.append(Resumed(self.wanted) if resumed else ReloadAborted())

    # The world

    @rule()
    def all_goes_well(self) -> None:
        """Whatever was asked for is done."""
        if self.checking:
            self.check_is_sound()
        for generation in [*self.loading]:
            self.loading.discard(generation)
            self.loaded.add(generation)
            self.feed(Prepared(generation))
        for spawn in [*self.pending]:
            self.give_birth(spawn)
        self.burst.clear()
        self.feed(*(Ready(pid) for pid in self.alive))

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 1.0, 5.0, 31.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if seconds:
            self.burst.clear()
        self.feed(Tick())
        deadline = self.machine.deadline()
        assert deadline is None or deadline > self.now, "it would spin"
        if self.stopped_at is not None:
            assert self.closed or self.now < self.stopped_at + self.drain_delay

    @rule(
        wanted=st.integers(1, 3),
        exec_ends=st.sampled_from(["resumed", "resumed", "failed", "refused"]),
        listening=st.sampled_from([True, True, False]),
    )
    def what_is_to_come(self, wanted: int, exec_ends: str, listening: bool) -> None:
        self.wanted, self.exec_ends, self.listening = wanted, exec_ends, listening

    @precondition(lambda self: self.loading)
    @rule(data=st.data(), outcome=st.sampled_from(["loaded", "loaded", "failed", -9]))
    def code_loads(self, data: st.DataObject, outcome: str | int) -> None:
        generation = data.draw(st.sampled_from(sorted(self.loading)))
        self.loading.discard(generation)
        if outcome == "loaded":
            self.loaded.add(generation)
            self.feed(Prepared(generation))
        elif outcome == "failed":
            self.feed(PrepareFailed(generation))
        else:
            self.feed(PrepareFailed(generation, status=-9), PreloaderGone(generation))

    @precondition(lambda self: self.loaded)
    @rule(data=st.data())
    def preloader_dies(self, data: st.DataObject) -> None:
        generation = data.draw(st.sampled_from(sorted(self.loaded)))
        self.loaded.discard(generation)
        failed = [s for s in self.pending if s[1] == generation]
        self.pending = [s for s in self.pending if s not in failed]
        self.feed(
            *(SpawnFailed(*spawn, lasting=False) for spawn in failed),
            PrepareFailed(generation, status=-9),
            PreloaderGone(generation),
        )

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def spawn_succeeds(self, data: st.DataObject) -> None:
        self.give_birth(data.draw(st.sampled_from(self.pending)))

    def give_birth(self, spawn: tuple[int, int]) -> None:
        self.pending.remove(spawn)
        pid, self.next_pid = self.next_pid, self.next_pid + 1
        self.alive[pid] = spawn
        self.feed(Spawned(*spawn, pid))

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), lasting=st.booleans())
    def spawn_fails(self, data: st.DataObject, lasting: bool) -> None:
        spawn = data.draw(st.sampled_from(self.pending))
        self.pending.remove(spawn)
        self.feed(SpawnFailed(*spawn, lasting))

    def some_worker(self, data: st.DataObject) -> int:
        return data.draw(st.sampled_from([*self.alive]))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def worker_is_ready(self, data: st.DataObject) -> None:
        pid = self.some_worker(data)
        self.burst.pop(self.alive[pid], None)
        self.feed(Ready(pid))

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), exit_code=st.sampled_from([1, 2, 3, 4]))
    def worker_fails(self, data: st.DataObject, exit_code: int) -> None:
        self.feed(Failed(self.some_worker(data), exit_code))

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), status=st.sampled_from([0, 1, 3, -9, -15]))
    def worker_ends(self, data: st.DataObject, status: int) -> None:
        self.end(self.some_worker(data), status)

    def end(self, pid: int, status: int) -> None:
        was_ready = pid in self.ready
        place = self.alive.pop(pid)
        self.ready.discard(pid)
        self.told.discard(pid)
        if was_ready:
            self.burst.pop(place, None)
        self.feed(Exited(pid, status))

    @precondition(lambda self: self.told)
    @rule()
    def those_that_were_told_end(self) -> None:
        for pid in [*self.told]:
            self.end(pid, -9 if pid in self.killed else 0)

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def worker_asks_for_a_successor(self, data: st.DataObject) -> None:
        self.feed(RetireRequested(self.some_worker(data), "is old"))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def worker_hangs(self, data: st.DataObject) -> None:
        self.feed(Hung(self.some_worker(data)))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def worker_is_debugged(self, data: st.DataObject) -> None:
        self.feed(Spared(self.some_worker(data)))

    @rule(times=st.integers(1, 3))
    def reload(self, times: int) -> None:
        self.feed(*[ReloadRequested()] * times)

    @precondition(lambda self: self.checking)
    @rule()
    def check_is_sound(self) -> None:
        self.checking = False
        self.feed(Checked(), Tick())

    @precondition(lambda self: self.checking)
    @rule()
    def check_refuses(self) -> None:
        self.checking = False
        self.feed(ReloadAborted())

    @rule(by=st.sampled_from([-1, 1, 1, -2, 2]))
    def scale(self, by: int) -> None:
        if len(self.machine.pool.serving.places) + by <= 6:
            self.burst.clear()
            self.feed(Scale(by))

    @rule(immediate=st.booleans(), really=st.integers(0, 4))
    def stop(self, immediate: bool, really: int) -> None:
        if really:
            return
        self.feed(StopRequested(immediate))
        if self.stopped_at is None:
            self.stopped_at = self.now
        if immediate:
            assert set(self.alive) <= self.killed

    # What is always true

    @invariant()
    def no_more_than_asked_for_in_a_place(self) -> None:
        for generation in self.machine.pool.generations():
            for place in generation.places.values():
                mine = self.machine.pool.in_place(place.number, generation.number)
                going = [w for w in mine if w.phase is Phase.DRAINING or w.leaving]
                asked = (place.number, generation.number) in self.pending
                assert len(mine) - len(going) + asked <= 1
                assert len(mine) + asked <= 2 + len(going)

    @invariant()
    def one_is_replaced_at_a_time(self) -> None:
        both = [
            worker
            for worker in self.machine.pool.workers.values()
            if worker.phase is Phase.READY
            and worker.leaving
            and self.machine.pool.find(worker.generation) is self.machine.pool.serving
            and (
                (worker.number, worker.generation) in self.pending
                or self.machine.pool.others(worker)
            )
        ]
        assert len(both) <= 1

    @invariant()
    def no_place_is_forgotten(self) -> None:
        if self.machine.stopping:
            return
        for generation in self.machine.pool.generations():
            for place in generation.places.values():
                assert (
                    place.due is not None
                    or (place.number, generation.number) in self.pending
                    or generation.deadline is not None
                    or self.machine.pool.in_place(place.number, generation.number)
                )

    @invariant()
    def everything_that_is_awaited_has_a_deadline(self) -> None:
        for worker in self.machine.pool.workers.values():
            if worker.phase is not Phase.READY:
                assert worker.deadline is not None or worker.pid in self.killed
        if self.pending or self.loading or self.checking:
            assert self.machine.deadline() is not None
        for generation in self.machine.pool.generations():
            if generation.number in self.loading:
                assert generation.deadline is not None

    @invariant()
    def what_loads_or_is_asked_for_is_wanted(self) -> None:
        known = {generation.number for generation in self.machine.pool.generations()}
        assert self.loading <= known
        assert self.loaded <= known
        assert {generation for _, generation in self.pending} <= known

    @invariant()
    def it_knows_its_processes(self) -> None:
        assert self.machine.pool.workers.keys() == self.alive.keys()
        assert sorted(self.machine.pool.spawns) == sorted(
            (g, n) for n, g in self.pending
        )

    @invariant()
    def the_exit_is_with_nobody_alive(self) -> None:
        over = self.closed and not self.alive and not self.pending
        assert bool(self.exits) == over

    def teardown(self) -> None:
        """Every stop ends in time, though no worker hears of it before it is killed."""
        if not hasattr(self, "machine"):
            return
        self.feed(StopRequested())
        if self.stopped_at is None:
            self.stopped_at = self.now
        latest = max(self.stopped_at, self.now) + self.drain_delay + STOP
        while (deadline := self.machine.deadline()) is not None:
            assert deadline <= latest
            self.now = max(self.now, deadline)
            self.burst.clear()
            self.feed(Tick())
            for pid in [*self.alive.keys() & self.killed]:
                self.end(pid, -9)
            for spawn in [*self.pending]:
                self.pending.remove(spawn)
                self.feed(SpawnFailed(*spawn, lasting=False))
        for pid in [*self.alive]:
            assert pid in self.killed
            self.end(pid, -9)
        assert len(self.exits) == 1


TestHistories: Any = Histories.TestCase
TestHistories.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None
)
