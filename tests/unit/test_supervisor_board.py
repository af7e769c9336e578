from __future__ import annotations

import os

import pytest

from djasgi.supervisor.board import (
    ACTIVE,
    BEAT,
    SLOTS,
    TOTAL,
    WIDTH,
    Board,
    memory,
)


def in_a_fork(run: object) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            assert callable(run)
            run()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_another_process_sees_what_is_written_and_the_other_way_round() -> None:
    board = Board()
    first, second = board.take(), board.take()
    board.not_ready()

    def worker() -> None:
        assert not board.ready
        mine = board.slot(second.number)
        mine[BEAT], mine[TOTAL] = 12.5, 7

    assert in_a_fork(worker) == 0
    assert (second[BEAT], second[TOTAL], second[ACTIVE]) == (12.5, 7, 0)
    assert [first[index] for index in range(WIDTH)] == [0.0] * WIDTH
    os.close(board.descriptor)


def test_the_next_supervisor_sees_it_by_the_descriptor() -> None:
    board = Board()
    slot = board.take()
    slot[TOTAL] = 3
    board.set_linger(0)

    again = Board(os.dup(board.descriptor))

    assert again.take(slot.number)[TOTAL] == 3, "what a worker has is kept"
    assert again.take().number != slot.number
    assert again.ready
    assert again.linger == 0
    os.close(again.descriptor)
    os.close(board.descriptor)


def test_linger_is_what_is_planned_until_it_is_set() -> None:
    board = Board()

    seen = [board.linger]
    for seconds in (0, 1.5):
        board.set_linger(seconds)
        seen.append(board.linger)

    assert seen == [None, 0, 1.5]
    os.close(board.descriptor)


def test_a_slot_that_was_freed_is_taken_again_all_zero() -> None:
    board = Board()
    slot = board.take()
    slot[BEAT] = 5
    board.free(slot)

    again = board.take()

    assert again.number == slot.number
    assert again[BEAT] == 0
    os.close(board.descriptor)


def test_there_are_no_more_slots_than_there_are() -> None:
    board = Board()
    numbers = {board.take().number for _ in range(SLOTS)}

    assert len(numbers) == SLOTS
    assert 0 not in numbers, "that is the head"
    with pytest.raises(BlockingIOError):
        board.take()
    os.close(board.descriptor)


def test_memory_without_a_name_is_to_be_had_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    descriptor = memory()

    os.write(descriptor, b"x")
    assert os.fstat(descriptor).st_nlink == 0
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
