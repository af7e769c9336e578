"""An ASGI application called in this process, without a server."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from asgiref.sync import SyncToAsync


@contextmanager
def urlconf(patterns: Sequence[Any], name: str = "test_urls") -> Iterator[str]:
    """The name of a module with these URL patterns."""
    module: Any = types.ModuleType(name)
    module.urlpatterns = patterns
    sys.modules[name] = module
    try:
        yield name
    finally:
        del sys.modules[name]


class Client:
    """One client of an application, in one loop."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.sent: list[Any] = []
        self.on_send: Callable[[Any], None] = lambda message: None
        self.hops: list[str] = []
        self.error: BaseException | None = None

    def get(self, url: str = "/page/", query: bytes = b"", body: bytes = b"") -> Any:
        """The status; what was sent is in `sent`, and the hops in `hops`."""
        original = SyncToAsync.__call__

        async def counting(this: Any, *args: Any, **kwargs: Any) -> Any:
            self.hops.append(getattr(this.func, "__name__", repr(this.func)))
            return await original(this, *args, **kwargs)

        SyncToAsync.__call__ = counting  # type: ignore[assignment, method-assign]
        try:
            asyncio.run(self._request(url, query, body))
        finally:
            SyncToAsync.__call__ = original  # type: ignore[method-assign]
        return self.sent[0]["status"] if self.sent else None

    async def _request(self, url: str, query: bytes, body: bytes) -> None:
        messages = [{"type": "http.request", "body": body}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            return await asyncio.get_running_loop().create_future()

        async def send(message: Any) -> None:
            self.sent.append(message)
            self.on_send(message)

        scope = {
            "type": "http",
            "method": "POST" if body else "GET",
            "path": url,
            "query_string": query,
            "headers": [
                (b"host", b"example.com"),
                (b"content-length", b"%d" % len(body)),
            ],
        }
        try:
            await self.application(scope, receive, send)
        except Exception as error:  # noqa: BLE001
            self.error = error
