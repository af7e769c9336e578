from __future__ import annotations

import json

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from djasgi.errors import DjasgiError, ListenError, ProjectError, UsageError
from djasgi.supervisor.master import describe_status
from djasgi.supervisor.state import (
    DELAYS,
    HEALTHY_AFTER,
    KILL_GRACE,
    Action,
    Announce,
    Cause,
    CloseListeners,
    Event,
    Exit,
    Exited,
    Failed,
    Kill,
    Listen,
    ListenFailed,
    Lost,
    Machine,
    Overdue,
    Phase,
    Ready,
    ReportFailure,
    Spawn,
    SpawnDelayed,
    Spawned,
    SpawnFailed,
    Started,
    StopRequested,
    Terminate,
    Tick,
)
from djasgi.supervisor.worker import Inbox, decode_failure, encode_failure

BOOT = 60.0
GRACEFUL = 20.0


def machine_of(workers: int) -> Machine:
    return Machine(workers, boot_timeout=BOOT, graceful_timeout=GRACEFUL)


def booting(workers: int = 2) -> Machine:
    """A machine at time 0 whose workers have the pids 101, 102 and so on."""
    machine = machine_of(workers)
    machine.on(Started(), 0)
    for number in range(1, workers + 1):
        machine.on(Spawned(number, 100 + number), 0)
    return machine


def serving(workers: int = 2) -> Machine:
    machine = booting(workers)
    for pid in [*machine.workers]:
        machine.on(Ready(pid), 0)
    return machine


def test_the_start_spawns_every_place_in_the_first_generation() -> None:
    assert machine_of(3).on(Started(), 0) == [Spawn(1, 1), Spawn(2, 1), Spawn(3, 1)]


def test_it_listens_when_the_first_is_ready_and_announces_when_all_are() -> None:
    machine = booting(3)

    assert machine.on(Ready(102), 1) == [Listen()]
    assert machine.on(Ready(102), 1) == []
    assert machine.on(Ready(101), 2) == []
    assert machine.on(Ready(103), 3) == [Announce()]


def test_a_replacement_that_becomes_ready_announces_nothing() -> None:
    machine = serving(1)
    machine.on(Exited(101, -9), 10)
    machine.on(Spawned(1, 201), 10)

    assert machine.on(Ready(201), 11) == []


@pytest.mark.parametrize(
    ("said", "code"), [(1, 3), (2, 2), (3, 3), (4, 4), (0, 3), (-1, 3), (99, 3)]
)
def test_a_failure_before_the_announcement_stops_with_its_exit_code(
    said: int, code: int
) -> None:
    machine = booting(2)

    assert machine.on(Failed(102, said), 1) == [
        ReportFailure(Cause.FAILED, 2, 102),
        CloseListeners(),
        Terminate(101),
    ]
    assert machine.on(Failed(101, 4), 1) == []
    assert machine.on(Exited(102, said), 1) == []
    assert machine.on(Exited(101, 0), 1) == [Exit(code)]


def test_a_worker_that_says_it_failed_and_does_not_end_is_killed() -> None:
    machine = booting(1)
    machine.on(Failed(101, 3), 1)

    assert machine.deadline() == 1 + KILL_GRACE
    assert machine.on(Tick(), 1 + KILL_GRACE) == [Kill(101), Overdue(1, 101, False)]


def test_an_exit_before_ready_and_the_announcement_stops_with_exit_code_3() -> None:
    machine = booting(2)
    machine.on(Ready(101), 1)

    assert machine.on(Exited(102, -11), 1) == [
        ReportFailure(Cause.EXITED, 2, 102, -11),
        CloseListeners(),
        Terminate(101),
    ]
    assert machine.on(Exited(101, 0), 1) == [Exit(3)]


def test_a_worker_lost_after_ready_and_before_the_announcement_is_replaced() -> None:
    machine = booting(2)
    machine.on(Ready(101), 1)

    assert machine.on(Exited(101, -9), 2) == [Lost(1, 101, -9, 0), Spawn(1, 1)]


def test_a_boot_that_takes_too_long_is_killed_and_reported_once() -> None:
    machine = booting(2)
    machine.on(Ready(102), 1)

    assert machine.deadline() == BOOT
    assert machine.on(Tick(), BOOT) == [
        Kill(101),
        ReportFailure(Cause.TIMEOUT, 1, 101),
        CloseListeners(),
        Terminate(102),
    ]
    assert machine.on(Exited(102, 0), 61) == []
    assert machine.on(Exited(101, -9), 61) == [Exit(3)]


def test_a_replacement_that_takes_too_long_to_boot_is_killed_and_tried_again() -> None:
    machine = serving(1)
    machine.on(Exited(101, 1), 10)
    machine.on(Spawned(1, 201), 10)

    assert machine.on(Tick(), 10 + BOOT) == [Kill(201), Overdue(1, 201, True)]
    assert machine.on(Exited(201, -9), 71) == [Lost(1, 201, -9, 0.5)]
    assert machine.deadline() == 71.5


def test_a_replacement_that_fails_to_boot_is_tried_again_later_and_later() -> None:
    machine = serving(1)
    now = 5.0
    pid = 101
    delays = []
    for _ in range(len(DELAYS) + 2):
        (lost, *_) = machine.on(Exited(pid, 3), now)
        assert isinstance(lost, Lost)
        delays.append(lost.delay)
        now += lost.delay
        machine.on(Tick(), now)
        pid += 100
        machine.on(Spawned(1, pid), now)
        assert machine.on(Failed(pid, 3), now) == []

    assert tuple(delays) == (*DELAYS, DELAYS[-1], DELAYS[-1])


def test_a_worker_that_served_long_enough_clears_the_failures() -> None:
    machine = serving(1)
    machine.on(Exited(101, 1), 1)
    machine.on(Spawned(1, 201), 1)
    machine.on(Ready(201), 2)

    lost = machine.on(Exited(201, 1), 2 + HEALTHY_AFTER)

    assert lost == [Lost(1, 201, 1, 0), Spawn(1, 1)]


def test_a_ready_worker_that_says_it_failed_is_replaced_when_it_is_gone() -> None:
    machine = serving(1)

    assert machine.on(Failed(101, 1), 5) == []
    assert machine.on(Tick(), 5 + KILL_GRACE) == [Kill(101), Overdue(1, 101, False)]
    assert machine.on(Exited(101, -9), 11) == [Lost(1, 101, -9, 0), Spawn(1, 1)]


def test_a_lasting_failure_to_spawn_the_first_ones_ends_at_once() -> None:
    machine = machine_of(2)
    machine.on(Started(), 0)
    machine.on(Spawned(1, 101), 0)

    assert machine.on(SpawnFailed(2, lasting=True, exit_code=4), 0) == [
        ReportFailure(Cause.SPAWN, 2),
        CloseListeners(),
        Terminate(101),
    ]
    assert machine.on(Exited(101, 0), 0) == [Exit(4)]


def test_a_passing_failure_to_spawn_is_tried_again_until_the_boot_timeout() -> None:
    machine = machine_of(1)
    machine.on(Started(), 0)

    assert machine.on(SpawnFailed(1, lasting=False), 0) == [SpawnDelayed(1, 0.5)]
    assert machine.on(Tick(), 0.4) == []
    assert machine.on(Tick(), 0.5) == [Spawn(1, 1)]
    assert machine.on(SpawnFailed(1, lasting=False), BOOT) == [
        ReportFailure(Cause.SPAWN, 1),
        CloseListeners(),
        Exit(3),
    ]


def test_a_failure_to_spawn_a_replacement_never_ends_the_program() -> None:
    machine = serving(2)
    machine.on(Exited(101, 1), 10)

    actions = machine.on(SpawnFailed(1, lasting=True), 10 + 2 * BOOT)

    assert actions == [SpawnDelayed(1, 0.5)]


def test_a_failure_to_listen_stops_with_its_exit_code() -> None:
    machine = booting(2)
    machine.on(Ready(101), 1)

    assert machine.on(ListenFailed(4), 1) == [
        ReportFailure(Cause.LISTEN, 0),
        CloseListeners(),
        Terminate(101),
        Terminate(102),
    ]
    machine.on(Exited(101, 0), 1)
    assert machine.on(Exited(102, 0), 1) == [Exit(4)]


def test_a_stop_terminates_once_and_kills_at_the_deadline() -> None:
    machine = serving(2)

    stop = [CloseListeners(), Terminate(101), Terminate(102)]
    assert machine.on(StopRequested(), 10) == stop
    assert machine.on(StopRequested(), 11) == []
    assert machine.on(Exited(101, 0), 12) == []
    late = 10 + GRACEFUL + KILL_GRACE
    assert machine.deadline() == late
    assert machine.on(Tick(), late) == [Kill(102), Overdue(2, 102, False)]
    assert machine.on(Tick(), late + 1) == []
    assert machine.on(Exited(102, -9), late + 1) == [Exit(0)]


def test_a_worker_that_becomes_ready_while_stopping_is_told_again() -> None:
    machine = booting(1)
    machine.on(StopRequested(), 1)

    assert machine.on(Ready(101), 2) == [Terminate(101)]


def test_an_immediate_stop_kills_each_worker_once() -> None:
    machine = serving(1)
    machine.on(StopRequested(), 1)

    assert machine.on(StopRequested(immediate=True), 2) == [Kill(101)]
    assert machine.on(StopRequested(immediate=True), 3) == []
    assert machine.on(Exited(101, -9), 3) == [Exit(0)]


def test_a_worker_spawned_while_stopping_is_stopped_as_well() -> None:
    machine = machine_of(2)
    machine.on(Started(), 0)
    machine.on(StopRequested(), 1)

    assert machine.on(Spawned(1, 101), 1) == [Terminate(101)]
    machine.on(StopRequested(immediate=True), 1)
    assert machine.on(Spawned(2, 102), 1) == [Terminate(102), Kill(102)]
    machine.on(Exited(101, -9), 2)
    assert machine.on(Exited(102, -9), 2) == [Exit(0)]


def test_a_spawn_that_fails_while_stopping_is_not_repeated() -> None:
    machine = machine_of(1)
    machine.on(Started(), 0)

    assert machine.on(StopRequested(), 1) == [CloseListeners()]
    assert machine.on(SpawnFailed(1, lasting=False), 1) == [Exit(0)]
    assert machine.on(Tick(), 2) == []


def test_the_exit_code_is_that_of_the_first_reason_to_end() -> None:
    machine = booting(1)
    machine.on(StopRequested(), 1)

    assert machine.on(Failed(101, 4), 1) == []
    assert machine.on(ListenFailed(4), 1) == []
    assert machine.on(Exited(101, 4), 1) == [Exit(0)]


def test_news_of_an_unknown_process_is_ignored() -> None:
    machine = serving(1)

    for event in (Ready(7), Failed(7, 3), Exited(7, 0)):
        assert machine.on(event, 1) == []


def test_messages_are_read_from_any_pieces_and_garbage_is_dropped() -> None:
    inbox = Inbox()

    assert inbox.feed(b'{"type": "re') == []
    assert inbox.feed(b'ady"}\n{"type"') == [{"type": "ready"}]
    assert inbox.feed(b': 1}\n\xff\n[]\n{"a": {}}\n') == [{"type": 1}, {"a": {}}]


def test_a_message_without_an_end_does_not_fill_the_memory() -> None:
    inbox = Inbox()
    for _ in range(100):
        inbox.feed(b"x" * 100_000)

    assert len(inbox._buffer) <= 2**20
    assert inbox.feed(b'\n{"type": "ready"}\n') == [{"type": "ready"}]


@pytest.mark.parametrize("kind", [UsageError, ProjectError, ListenError, DjasgiError])
def test_a_failure_arrives_as_the_error_it_was(kind: type[DjasgiError]) -> None:
    sent = kind("Nö.", hint="Do.", details="a\nb")

    got = decode_failure(json.loads(json.dumps(encode_failure(sent))))

    assert type(got) is kind
    assert (got.message, got.hint, got.details) == ("Nö.", "Do.", "a\nb")


@pytest.mark.parametrize("exit_code", [None, [], "3", 77])
def test_a_failure_with_an_unknown_exit_code_is_a_plain_one(exit_code: object) -> None:
    error = decode_failure({"type": "failed", "exit_code": exit_code})

    assert type(error) is DjasgiError


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (3, "ended with exit code 3"),
        (-9, "was killed by SIGKILL"),
        (-40, "was killed by signal 40"),
    ],
)
def test_the_end_of_a_process_is_said_in_words(status: int, text: str) -> None:
    assert describe_status(status) == text


class Histories(RuleBasedStateMachine):
    """Random histories: spawns answered late or not at all, workers that do anything."""

    @initialize(workers=st.integers(1, 4))
    def start(self, workers: int) -> None:
        self.size = workers
        self.machine = machine_of(workers)
        self.now = 0.0
        self.next_pid = 1
        self.pending: list[int] = []
        self.alive: dict[int, int] = {}
        self.stopped_at: float | None = None
        self.exits: list[int] = []
        self.counts = {Announce: 0, Listen: 0, ReportFailure: 0, CloseListeners: 0}
        self.feed(Started())

    def feed(self, event: Event) -> None:
        for action in self.machine.on(event, self.now):
            self.carry_out(action)

    def carry_out(self, action: Action) -> None:
        assert not self.exits, "nothing is done after the exit"
        if type(action) in self.counts:
            self.counts[type(action)] += 1
            assert self.counts[type(action)] == 1
        match action:
            case Spawn(number, generation):
                assert self.stopped_at is None
                assert generation == 1
                assert number not in [*self.pending, *self.alive.values()]
                self.pending.append(number)
            case Terminate(pid) | Kill(pid):
                assert pid in self.alive, "signals go to live children only"
            case Announce():
                phases = [w.phase for w in self.machine.workers.values()]
                assert phases.count(Phase.READY) == self.size
            case CloseListeners():
                self.stopped_at = self.now
            case Exit(code):
                self.exits.append(code)
        if isinstance(action, Kill):
            self.killed.add(action.pid)

    killed: set[int]

    @initialize()
    def forget(self) -> None:
        self.killed = set()

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 1.0, 5.0, 31.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.feed(Tick())

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def spawn_succeeds(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.pending))
        self.pending.remove(number)
        pid, self.next_pid = self.next_pid, self.next_pid + 1
        self.alive[pid] = number
        self.feed(Spawned(number, pid))

    @precondition(lambda self: self.pending)
    @rule(data=st.data(), lasting=st.booleans())
    def spawn_fails(self, data: st.DataObject, lasting: bool) -> None:
        number = data.draw(st.sampled_from(self.pending))
        self.pending.remove(number)
        self.feed(SpawnFailed(number, lasting))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def worker_is_ready(self, data: st.DataObject) -> None:
        self.feed(Ready(data.draw(st.sampled_from([*self.alive]))))

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), exit_code=st.sampled_from([1, 2, 3, 4]))
    def worker_fails(self, data: st.DataObject, exit_code: int) -> None:
        self.feed(Failed(data.draw(st.sampled_from([*self.alive])), exit_code))

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), status=st.sampled_from([0, 1, 3, -9, -15]))
    def worker_ends(self, data: st.DataObject, status: int) -> None:
        pid = data.draw(st.sampled_from([*self.alive]))
        del self.alive[pid]
        self.feed(Exited(pid, status))

    @rule(immediate=st.booleans())
    def stop(self, immediate: bool) -> None:
        self.feed(StopRequested(immediate))
        assert self.stopped_at is not None
        if immediate:
            assert set(self.alive) <= self.killed

    @precondition(lambda self: self.counts[Listen])
    @rule()
    def listening_fails(self) -> None:
        self.feed(ListenFailed(4))

    @invariant()
    def never_more_than_asked_for(self) -> None:
        assert len(self.alive) + len(self.pending) <= self.size

    @invariant()
    def no_place_is_forgotten(self) -> None:
        busy = len(self.alive) + len(self.pending)
        if self.stopped_at is None and busy < self.size:
            assert self.machine.deadline() is not None

    @invariant()
    def no_worker_boots_or_drains_without_a_deadline_or_a_kill(self) -> None:
        for worker in self.machine.workers.values():
            if worker.phase is not Phase.READY:
                assert worker.deadline is not None or worker.pid in self.killed

    @invariant()
    def the_exit_is_with_nobody_alive(self) -> None:
        over = self.stopped_at is not None and not self.alive and not self.pending
        assert bool(self.exits) == over

    def teardown(self) -> None:
        """Every stop ends, though no worker hears of it before it is killed."""
        if not hasattr(self, "machine"):
            return
        self.feed(StopRequested())
        for number in [*self.pending]:
            self.pending.remove(number)
            self.feed(SpawnFailed(number, lasting=False))
        while (deadline := self.machine.deadline()) is not None:
            assert deadline <= self.now + GRACEFUL + KILL_GRACE
            self.now = max(self.now, deadline)
            self.feed(Tick())
        for pid in [*self.alive]:
            assert pid in self.killed
            del self.alive[pid]
            self.feed(Exited(pid, -9))
        assert len(self.exits) == 1


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None
)
