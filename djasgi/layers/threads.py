"""A thread of one's own for the synchronous code of a request."""

from __future__ import annotations

from contextvars import Context

from asgiref.sync import SyncToAsync

from djasgi.layers.asgi import App, Receive, Scope, Send
from djasgi.threads import Threads
from djasgi.threads.hop import LeasedContext
from djasgi.threads.lease import current


class ThreadLeases:
    """Gives every request and every websocket connection a lease on a thread.

    asgiref runs on it what is thread-sensitive. Django's own context inside keeps ours
    (asgiref: ThreadSensitiveContext).
    """

    def __init__(self, app: App, threads: Threads) -> None:
        self.app = app
        self.threads = threads
        # One for all, since entering one is a good part of what a small request costs;
        # its executor is the lease of whoever asks. Never left: in a context that was,
        # tasks that outlive their request could call nothing any more.
        self.context = LeasedContext()
        entering = self.context.__aenter__()  # type: ignore[no-untyped-call]
        try:
            Context().run(entering.send, None)
        except StopIteration:
            pass
        else:
            raise RuntimeError("asgiref waits before it enters a context")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            lease = self.threads.requests.lease()
        elif kind == "websocket":
            lease = self.threads.websockets.lease()
        else:
            await self.app(scope, receive, send)
            return
        # Both end with the context of the server's task.
        current.set(lease)
        SyncToAsync.thread_sensitive_context.set(self.context)
        try:
            await self.app(scope, receive, send)
        finally:
            lease.end()
