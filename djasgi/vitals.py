"""What a worker tells of itself while it serves: that it lives, and when it is old."""

from __future__ import annotations

import asyncio
import random
from time import monotonic
from typing import TYPE_CHECKING

from djasgi.layers.requests import Requests
from djasgi.options import Options
from djasgi.supervisor.board import (
    ACTIVE,
    BEAT,
    CONNECTIONS,
    LEASES,
    THREADS,
    TOTAL,
    WAITING,
)
from djasgi.supervisor.liveness import BEATS
from djasgi.supervisor.system import memory
from djasgi.threads.database import OpenConnections

if TYPE_CHECKING:
    from djasgi.supervisor.worker import Channel
    from djasgi.threads import Threads

LOOKS = 4
"""Every so many beats memory and connections are looked at."""


ASK_AGAIN = 20
"""Beats until a successor is asked for once more."""


class Vitals:
    """Beats in the event loop, asks for a successor when a limit is reached, and tells
    of threads that are stuck.
    """

    def __init__(
        self,
        channel: Channel,
        options: Options,
        requests: Requests,
        threads: Threads | None,
    ) -> None:
        self._threads = threads
        self._connections = OpenConnections()
        self._connections.watch()
        self._channel = channel
        self._options = options
        self._requests = requests
        self._loop = asyncio.get_running_loop()
        self._began = monotonic()
        self._beats = 0
        self._next_asking = 0
        self._stuck = False
        # The generator was seeded before the fork: all workers would draw the same.
        extra = random.SystemRandom().randint(0, options.max_requests_jitter)
        self._most_requests = options.max_requests + extra

    def beat(self) -> None:
        """Write that this loop runs; again and again."""
        now = monotonic()
        slot = self._channel.slot
        slot[BEAT] = now
        slot[TOTAL] = self._requests.total
        slot[ACTIVE] = self._requests.active
        if self._threads is not None:
            slot[THREADS] = self._threads.threads
            slot[LEASES] = self._threads.leases
            slot[WAITING] = self._threads.waiting
            self._look_at(self._threads)
        if self._beats % LOOKS == 0:
            slot[CONNECTIONS] = self._connections.count()
        if self._channel.on_beat is not None:
            self._channel.on_beat(now)
        self._beats += 1
        if self._beats >= self._next_asking and (reason := self._reason(now)):
            # Again and again: who is not ready yet is not heard.
            self._next_asking = self._beats + ASK_AGAIN
            self._channel.retire(reason)
        self._loop.call_later(BEATS, self.beat)

    def _look_at(self, threads: Threads) -> None:
        """Tell of threads that are all stuck, once until they have gone on."""
        timeout = self._options.hang_timeout
        seconds = threads.stuck() if timeout else 0.0
        stuck = bool(timeout) and seconds >= timeout
        if stuck and not self._stuck:
            self._channel.stuck(threads.threads, threads.waiting, seconds)
        self._stuck = stuck

    def _reason(self, now: float) -> str:
        """Why this worker should be replaced; "" as long as it should not."""
        options = self._options
        if options.max_requests and self._requests.total >= self._most_requests:
            return f"has served {self._requests.total} requests"
        if (
            options.max_worker_lifetime
            and now - self._began > options.max_worker_lifetime
        ):
            return f"is older than {options.max_worker_lifetime:g} s"
        if options.max_worker_memory and self._beats % LOOKS == 0:
            return self._memory_reason(options.max_worker_memory)
        return ""

    def _memory_reason(self, most: int) -> str:
        import os

        used = memory(os.getpid()) or 0
        if used <= most:
            return ""
        return f"uses {used // 2**20} MiB of memory, more than {most // 2**20} MiB"
