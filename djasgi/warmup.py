"""Requests to the application from inside the worker, before it is ready."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from djasgi.errors import ProjectError
from djasgi.layers.asgi import App, Message, Scope

if TYPE_CHECKING:
    from djasgi.threads.leases import Leases

SERVER_ERROR = 500


async def warm_up(app: App, paths: Sequence[str], leases: Leases | None = None) -> None:
    """Ask `app` for each page, so that what its first request loads is loaded.

    Raises ProjectError for an answer of 500 and above, and when the application raises:
    a worker that cannot answer is not ready.
    """
    for path in paths:
        lease = None if leases is None else leases.begin("http")
        try:
            status = await _status(app, path)
        finally:
            if lease is not None:
                lease.end()
        if status is None or status >= SERVER_ERROR:
            what = "is not answered" if status is None else f"answers {status}"
            raise ProjectError(
                f"The warm-up page {path} {what} (--warmup).",
                hint="The lines above say why; or name a page that works without data.",
            )


async def _status(app: App, path: str) -> int | None:
    statuses: list[int] = []
    messages: list[Message] = [
        {"type": "http.request", "body": b"", "more_body": False}
    ]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        import asyncio

        nothing: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        return await nothing

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    try:
        await app(_scope(path), receive, send)
    except Exception as error:
        raise ProjectError(
            f"The warm-up page {path} raises {type(error).__name__}: {error} (--warmup).",
            hint="Name a page that works without data.",
        ) from error
    return statuses[0] if statuses else None


def _scope(path: str) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https" if _setting("SECURE_SSL_REDIRECT") else "http",
        "path": unquote_to_bytes(path).decode("utf-8", "replace"),
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", _host().encode()), (b"user-agent", b"djasgi-warmup")],
        "client": ("127.0.0.1", 0),
        "server": ("127.0.0.1", 0),
        "state": {},
    }


def _host() -> str:
    """A host that the project answers to: Django refuses others (ALLOWED_HOSTS)."""
    hosts = [host for host in _setting("ALLOWED_HOSTS") or () if "*" not in host]
    return str(hosts[0]).lstrip(".") if hosts else "localhost"


def _setting(name: str) -> Any:
    conf = sys.modules.get("django.conf")
    if conf is None or not conf.settings.configured:
        return None
    return getattr(conf.settings, name, None)
