"""Answers for load balancers and orchestrators, whatever the application does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from djasgi.layers.asgi import App, Middleware, Receive, Scope, Send

_METHODS = ("GET", "HEAD")


class Health:
    """Answers `live` and `ready`, two exact paths, either of which may be None.

    In front of the application, so neither ALLOWED_HOSTS nor a redirect to HTTPS gets
    in the way. The answers are constant and not to be stored (RFC 9111, section
    5.2.2.5): 200 and, for `ready`, 503 when `is_ready()` is false.
    """

    def __init__(
        self,
        app: App,
        live: str | None,
        ready: str | None,
        is_ready: Callable[[], bool],
        log: Middleware | None = None,
    ) -> None:
        """`log` is around the answers; they are asked for too often to be logged."""
        self.app = app
        self.paths = {path for path in (live, ready) if path is not None}
        self.answer: App = _Answer(ready, is_ready)
        if log is not None:
            self.answer = log(self.answer)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        asked = scope["type"] == "http" and scope["path"] in self.paths
        if asked and scope["method"] in _METHODS:
            return self.answer(scope, receive, send)
        return self.app(scope, receive, send)


class _Answer:
    def __init__(self, ready: str | None, is_ready: Callable[[], bool]) -> None:
        self.ready = ready
        self.is_ready = is_ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        ok = scope["path"] != self.ready or self.is_ready()
        body = b"ok\n" if ok else b"stopping\n"
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            (b"cache-control", b"no-store"),
        ]
        status = 200 if ok else 503
        await send(
            {"type": "http.response.start", "status": status, "headers": headers}
        )
        head = scope["method"] == "HEAD"
        await send({"type": "http.response.body", "body": b"" if head else body})
