"""Threads for the synchronous code of requests and websocket connections.

Each gets a `Lease`, an executor that stands for one thread. Requests and websocket
connections have a `Pool` each, and so no thread in common: what a request leaves behind
in a thread (a tenant in a thread-local, a schema on a database connection) is met by
the middleware of the next request, as on WSGI, but nothing would meet it in a consumer.
"""

from __future__ import annotations

from time import monotonic

from djasgi.threads.lease import Lease, release
from djasgi.threads.pool import Pool

__all__ = ["Lease", "Pool", "Threads", "release"]


class Threads:
    """The threads of a worker, from `minimum` to `maximum` in each of its two pools."""

    def __init__(self, minimum: int, maximum: int) -> None:
        self.requests = Pool(minimum, maximum, name="request")
        self.websockets = Pool(minimum, maximum, name="websocket", exclusive=False)

    @property
    def threads(self) -> int:
        """Threads that are there, busy or not."""
        return self.requests.threads + self.websockets.threads

    @property
    def leases(self) -> int:
        """Requests and websocket connections that are open."""
        return self.requests.leases + self.websockets.leases

    @property
    def waiting(self) -> int:
        """Calls that wait for a thread."""
        return self.requests.waiting + self.websockets.waiting

    def stuck(self) -> float:
        """Seconds for which no call has ended although others wait for a thread."""
        return max(self.requests.stuck(), self.websockets.stuck())

    def close(self, timeout: float) -> bool:
        """End all threads; False if one still ran a call after `timeout` seconds."""
        deadline = monotonic() + timeout
        pools = (self.requests, self.websockets)
        for pool in pools:
            pool.stop()
        ended = [pool.join(max(0.0, deadline - monotonic())) for pool in pools]
        return all(ended)
