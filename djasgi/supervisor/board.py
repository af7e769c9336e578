"""Shared memory between the supervisor and its workers: one page of numbers a worker.

A worker writes its slot and the supervisor reads it; the head is written by the
supervisor. Each number is an aligned double, which is read and written in one piece;
`struct.pack_into` would zero it first, and a reader could see that.

The layout is part of the hand-over between supervisors, so it is only ever appended to.
"""

from __future__ import annotations

import mmap
import os

SLOTS = 2 * 512 + 64
WIDTH = 16
"""Doubles of a slot, and of the head."""

_DOUBLE = 8
SIZE = (SLOTS + 1) * WIDTH * _DOUBLE

NOT_READY, LINGER = range(2)
"""Of the head: whether this instance is going away, and seconds plus one; 0 is unset."""

BEAT, TOTAL, ACTIVE, THREADS, LEASES, WAITING, CONNECTIONS = range(7)
"""Of a slot."""


class Board:
    """The shared memory. Kept open by descriptor, so that it survives an exec."""

    def __init__(self, descriptor: int | None = None) -> None:
        if descriptor is None:
            descriptor = memory()
            os.ftruncate(descriptor, SIZE)
        self.descriptor = descriptor
        self._numbers = memoryview(mmap.mmap(descriptor, SIZE)).cast("d")
        self._free = set(range(1, SLOTS + 1))

    @property
    def ready(self) -> bool:
        """Whether this instance wants requests; False once it is about to stop."""
        return self._numbers[NOT_READY] == 0

    def not_ready(self) -> None:
        """Say, in all workers at once, that this instance is going away."""
        self._numbers[NOT_READY] = 1

    @property
    def linger(self) -> float | None:
        """Seconds that idle connections linger at this stop, None for what is planned."""
        value = self._numbers[LINGER]
        return value - 1 if value else None

    def set_linger(self, seconds: float) -> None:
        self._numbers[LINGER] = seconds + 1

    def take(self, number: int | None = None) -> Slot:
        """A free slot, all zero; or `number`, which a worker has already.

        Raises BlockingIOError when there is none.
        """
        if number is not None:
            self._free.discard(number)
            return Slot(self._numbers, number)
        if not self._free:
            raise BlockingIOError("no slot is free")
        number = min(self._free)  # the pages that are used stay few
        self._free.remove(number)
        slot = Slot(self._numbers, number)
        slot.clear()
        return slot

    def free(self, slot: Slot) -> None:
        self._free.add(slot.number)

    def slot(self, number: int) -> Slot:
        """The slot of a worker, for the worker itself."""
        return Slot(self._numbers, number)


class Slot:
    """The numbers of one worker. `slot[BEAT]` is 0 until the first beat."""

    __slots__ = ("_numbers", "_start", "number")

    def __init__(self, numbers: memoryview[float], number: int) -> None:
        self.number = number
        self._numbers = numbers
        self._start = number * WIDTH

    def __getitem__(self, index: int) -> float:
        return self._numbers[self._start + index]

    def __setitem__(self, index: int, value: float) -> None:
        self._numbers[self._start + index] = value

    def clear(self) -> None:
        for index in range(WIDTH):
            self[index] = 0.0


def memory() -> int:
    """The descriptor of memory that has no name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("djasgi")
    import tempfile  # with it come random, hashlib and OpenSSL

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
