"""Makes asgiref run what a request calls on the lease of that request."""

from __future__ import annotations

from contextvars import Context

from asgiref.sync import SyncToAsync

from djasgi.threads import Threads
from djasgi.threads.hop import LeasedContext
from djasgi.threads.lease import Lease, current


class Leases:
    """Gives every request and every websocket connection a lease on a thread.

    asgiref runs on it what is thread-sensitive. Django's own context inside keeps ours
    (asgiref: ThreadSensitiveContext).
    """

    def __init__(self, threads: Threads) -> None:
        self._requests = threads.requests
        self._websockets = threads.websockets
        # One for all, since entering one is a good part of what a small request costs;
        # its executor is the lease of whoever asks. Never left: in a context that was,
        # tasks that outlive their request could call nothing any more.
        self._context = LeasedContext()
        entering = self._context.__aenter__()  # type: ignore[no-untyped-call]
        try:
            Context().run(entering.send, None)
        except StopIteration:
            pass
        else:
            raise RuntimeError("asgiref waits before it enters a context")

    def begin(self, kind: str) -> Lease:
        """The lease of what runs in this context; `kind` is the type of its scope.

        To be ended by the caller. What it sets ends with the context: of the server's
        task, as a rule.
        """
        pool = self._requests if kind == "http" else self._websockets
        lease = pool.lease()
        current.set(lease)
        SyncToAsync.thread_sensitive_context.set(self._context)
        return lease
