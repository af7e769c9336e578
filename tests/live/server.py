"""One of djasgi's servers in the place of Django's WSGI server in a `LiveServerThread`.

The rest of that thread is Django's: what it is given, when it is ready, how errors of
its start reach the test, and what it closes at its end.

The engine is the one of `djasgi serve`: layers, leased threads, drain. What differs from
a worker: it is a thread of the process of the tests, so there are no signals.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import sync_to_async

from djasgi import servers
from djasgi.handler import ASGIHandler
from djasgi.layers.compose import compose
from djasgi.layers.requests import Requests
from djasgi.options import Options
from djasgi.serving import THREADS_GRACE, loop_factory
from djasgi.threads import Pool, Threads
from djasgi.threads.leases import Leases
from djasgi.threads.thread import PoolThread

App = Callable[[Any, Any, Any], Awaitable[None]]

served = {"servers": 0, "requests": 0}
"""What was really served: without it a comparison would prove nothing."""

_overrides: dict[Pool, dict[str, Any]] = {}


def share_connections() -> None:
    """Give the leased threads of a live server the connections that it was given.

    Django's threaded server puts them in place as each thread starts. A leased thread
    may be made at any time of a request, so here they are what it finds when it asks
    for a connection for the first time. That is how any thread comes to one.
    """
    from django.db import connections

    create = connections.create_connection

    def create_connection(alias: str) -> Any:
        thread = threading.current_thread()
        if isinstance(thread, PoolThread):
            shared = _overrides.get(thread.pool, {})
            if alias in shared:
                return shared[alias]
        return create(alias)

    handler: Any = connections
    handler.create_connection = create_connection


class Files(ASGIHandler):
    """What a static handler of `django.test` does, as an ASGI application."""

    def __init__(self, files: Any, application: App) -> None:
        super().__init__()
        self.files = files
        self.application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and self.files._should_handle(scope["path"]):
            await super().__call__(scope, receive, send)
        else:
            await self.application(scope, receive, send)

    async def get_response_async(self, request: Any) -> Any:
        from django.http import Http404

        try:
            return await sync_to_async(self.files.serve)(request)
        except Http404:
            return await super().get_response_async(request)


def as_asgi(handler: Any) -> App:
    """The ASGI application that does what this chain of WSGI handlers does."""
    from django.contrib.staticfiles.handlers import (
        ASGIStaticFilesHandler,
        StaticFilesHandler,
    )
    from django.core.handlers.wsgi import WSGIHandler
    from django.test.testcases import FSFilesHandler

    if type(handler) is WSGIHandler:
        return ASGIHandler()
    inner = as_asgi(handler.application)
    if isinstance(handler, StaticFilesHandler):
        wrapped: Any = inner
        return ASGIStaticFilesHandler(wrapped)
    assert isinstance(handler, FSFilesHandler), handler
    return Files(handler, inner)


class LiveServer:
    """What `LiveServerThread` expects of its server, by one of djasgi's three."""

    name: str

    def __init__(
        self,
        address: tuple[str, int],
        handler_class: Any,
        *,
        allow_reuse_address: bool,
        connections_override: dict[str, Any] | None = None,
    ) -> None:
        self.options = Options(server=self.name, access_log=False, proxy_headers=False)
        self.threads = Threads(*self.options.threads)
        for pool in (self.threads.requests, self.threads.websockets):
            _overrides[pool] = connections_override or {}
        self.socket = socket.socket()
        if allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self.socket.bind(address)
            # Tests connect as soon as the thread has the server.
            self.socket.listen(self.options.backlog)
        except BaseException:
            self.socket.close()
            raise
        self.server_address: tuple[str, int] = self.socket.getsockname()
        self.requests: Requests | None = None
        self._asked = threading.Event()
        self._ended = threading.Event()
        self._stop: Callable[[], object] = self._asked.set

    def set_app(self, handler: Any) -> None:
        app = compose(as_asgi(handler), self.options, state=None)
        self.requests = Requests(app, Leases(self.threads))

    def serve_forever(self) -> None:
        """Serve until `shutdown`, drain, and end the threads."""
        assert self.requests is not None
        served["servers"] += 1
        try:
            self.serve(self.requests)
        finally:
            closed = self.threads.close(THREADS_GRACE)
            for pool in (self.threads.requests, self.threads.websockets):
                del _overrides[pool]
            served["requests"] += self.requests.total
            self._ended.set()
        if not closed:
            raise RuntimeError("threads of a live server still run")

    def serve(self, requests: Requests) -> None:
        server = servers.load(self.name)
        with asyncio.Runner(loop_factory=loop_factory(self.options.loop)) as runner:
            server.prepare(self.options, runner.get_loop())
            runner.run(self._serve(server, requests))

    async def _serve(self, server: Any, requests: Requests) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(stop.set)
        if self._asked.is_set():
            stop.set()
        await server.serve(
            requests,
            self.options,
            [self.socket],
            None,
            ready=lambda: None,
            stop=stop,
            linger=lambda: self.options.linger,
            requests=requests,
        )

    def shutdown(self) -> None:
        """Ask for the end, and wait for it."""
        self._asked.set()
        self._stop()
        self._ended.wait()

    def server_close(self) -> None:
        self.socket.close()


class Uvicorn(LiveServer):
    name = "uvicorn"


class Hypercorn(LiveServer):
    name = "hypercorn"


class Daphne(LiveServer):
    """Ports of one daphne: a process has one Twisted reactor, which runs once."""

    name = "daphne"

    def serve(self, requests: Requests) -> None:
        port = _process.open(self.socket, self.server_address, requests)
        self._asked.wait()
        _process.close(port, self.server_address)


class _Process:
    """The one daphne of this process, in a thread of its own until the process ends."""

    def __init__(self) -> None:
        self._apps: dict[int, Requests] = {}
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: Any = None
        self._ready = threading.Event()

    def open(self, sock: socket.socket, address: Any, requests: Requests) -> Any:
        from djasgi.servers.engines.reactor import adopt

        self._start()
        self._apps[address[1]] = requests
        factory = self._engine.http_factory
        return self._call(lambda: adopt(sock, factory, self._engine.options.backlog))

    def close(self, port: Any, address: Any) -> None:
        stopped = self._call(port.stopListening)
        assert stopped is None or stopped.called, "closing a port is immediate"
        # Whoever has a connection still is refused below.
        del self._apps[address[1]]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._apps[scope["server"][1]](scope, receive, send)

    def _call(self, function: Callable[[], Any]) -> Any:
        assert self._loop is not None

        async def call() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    def _start(self) -> None:
        with self._lock:
            if self._loop is None:
                thread = threading.Thread(target=self._run, name="daphne", daemon=True)
                thread.start()
                self._ready.wait()

    def _run(self) -> None:
        options = Options(server="daphne", access_log=False, proxy_headers=False)
        with asyncio.Runner(loop_factory=loop_factory(options.loop)) as runner:
            self._loop = runner.get_loop()
            servers.load("daphne").prepare(options, self._loop)
            runner.run(self._serve(options))

    async def _serve(self, options: Options) -> None:
        from djasgi.servers.engines.daphne import Engine

        requests = Requests(self)
        self._engine = Engine(requests, options, {})
        await self._engine.serve(
            [],
            None,
            ready=self._ready.set,
            stop=asyncio.Event(),
            linger=lambda: 0.0,
            requests=requests,
        )


_process = _Process()

LIVE = {kind.name: kind for kind in (Uvicorn, Hypercorn, Daphne)}
