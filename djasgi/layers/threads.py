"""A thread of one's own for the synchronous code of a request."""

from __future__ import annotations

from asgiref.sync import ThreadSensitiveContext

from djasgi.layers.asgi import App, Receive, Scope, Send
from djasgi.threads import Threads
from djasgi.threads.lease import current


class ThreadLeases:
    """Gives every request and every websocket connection a lease on a thread.

    asgiref runs on it what is thread-sensitive. Django's own context inside keeps ours
    (asgiref: ThreadSensitiveContext).
    """

    def __init__(self, app: App, threads: Threads) -> None:
        self.app = app
        self.threads = threads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                pool = self.threads.requests
            case "websocket":
                pool = self.threads.websockets
            case _:
                await self.app(scope, receive, send)
                return
        lease = pool.lease()
        current.set(lease)
        context = ThreadSensitiveContext(executor=lease)
        # Never left: in a context that was, tasks that outlive the request could call
        # nothing any more. It ends with the context of the server's task.
        await context.__aenter__()  # type: ignore[no-untyped-call]
        # It refers to the context before, of an earlier request on the connection if
        # requests are pipelined.
        context.token = None
        try:
            await self.app(scope, receive, send)
        finally:
            lease.end()
