"""What one worker does: an event loop, the application, and a server around it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from djasgi import logs, servers
from djasgi.duty import Duty
from djasgi.layers.asgi import App
from djasgi.layers.compose import compose, wrap
from djasgi.layers.lifespan import Lifespan
from djasgi.layers.requests import Requests
from djasgi.loading import (
    Loaded,
    close_connections,
    import_for_requests,
    load,
    run_system_checks,
    without_project,
)
from djasgi.options import Options
from djasgi.servers.base import Server
from djasgi.supervisor.job import Preloaded
from djasgi.vitals import Vitals

if TYPE_CHECKING:
    from djasgi.supervisor.worker import Channel
    from djasgi.threads import Threads
    from djasgi.threads.leases import Leases

logger = logging.getLogger("djasgi")

HEADROOM = 20
"""File descriptors that a loop, a server and the first clients need."""

THREADS_GRACE = 1.0
"""Seconds for synchronous code that still runs when the event loop is closed."""

SHUTDOWN_GRACE = 2.0
"""Seconds for the application's lifespan shutdown that it has in any case.

Both together are less than what is left between the graceful timeout and the kill.
"""


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """The event loop of `--loop`; `auto` is uvloop where it is installed."""
    if name != "asyncio":
        try:
            import uvloop
        except ImportError:
            pass
        else:
            return uvloop.new_event_loop  # type: ignore[no-any-return]
    return asyncio.new_event_loop


def serve_worker(duty: Duty, number: int, channel: Channel) -> None:
    """Load the application, serve it until told to stop, come back when all is drained.

    `number` is the worker's, 0 without a supervisor. Raises DjasgiError for what keeps
    the application from being served.
    """
    plan = duty.plan
    _require_descriptors()
    server = servers.load(plan.options.server)
    with (
        _threads(plan.options) as threads,
        asyncio.Runner(loop_factory=loop_factory(plan.options.loop)) as runner,
    ):
        # Before the project's root enters sys.path, where a file of the server's name
        # would shadow it; and before the project is imported, which may itself ask for
        # Twisted's reactor.
        server.prepare(plan.options, runner.get_loop())
        _configure_logs(duty, number, None)
        loaded = load(plan)
        _configure_logs(duty, number, loaded)
        _serve_with(runner, duty, number, server, loaded, channel, threads)


def preload(duty: Duty, reloading: bool) -> Preloaded:
    """Load the application once, for workers that are forks of this process.

    When `reloading`, Django's system checks are run as well, since there are old
    workers that can go on instead. Raises DjasgiError.
    """
    _require_descriptors()
    server = servers.load(duty.plan.options.server)
    server.preload(duty.plan.options)
    loop_factory(duty.plan.options.loop)
    loaded = load(duty.plan)
    if reloading:
        run_system_checks()
    import_for_requests()
    close_connections()
    # What is imported stays: collections need not go through it, nor copy it.
    gc.freeze()
    return Preloaded(partial(_serve_preloaded, duty, loaded), server.unforkable())


def _serve_preloaded(duty: Duty, loaded: Loaded, number: int, channel: Channel) -> None:
    options = duty.plan.options
    server = servers.load(options.server)
    with (
        _threads(options) as threads,
        asyncio.Runner(loop_factory=loop_factory(options.loop)) as runner,
    ):
        with without_project(duty.plan):
            server.prepare(options, runner.get_loop())
        _configure_logs(duty, number, loaded)
        _serve_with(runner, duty, number, server, loaded, channel, threads)


def _serve_with(
    runner: asyncio.Runner,
    duty: Duty,
    number: int,
    server: Server,
    loaded: Loaded,
    channel: Channel,
    threads: Threads | None,
) -> None:
    _collect_garbage()
    runner.run(_serve(duty, number, server, loaded, channel, threads))


_THRESHOLDS = gc.get_threshold()
"""Of the garbage collector, before the project is imported."""


def _collect_garbage() -> None:
    """Turn the garbage collector on, in a way that suits requests.

    Collections need not go through what was imported. That makes full ones cheap, and
    every request of Django leaves reference cycles that, with many requests at a time,
    only full ones find: ten times as often they keep a busy worker 6 MB smaller, at no
    cost that could be measured. Thresholds that the project has chosen are left alone.
    """
    gc.freeze()
    if gc.get_threshold() == _THRESHOLDS:
        young, middle, old = _THRESHOLDS
        gc.set_threshold(young, middle, min(old, 1))
    gc.enable()


def _require_descriptors() -> None:
    """Raise OSError if there are not enough file descriptors to serve with.

    Running out of them halfway shows in ways of which none says so.
    """
    opened: list[int] = []
    try:
        opened.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(HEADROOM))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _configure_logs(duty: Duty, number: int, loaded: Loaded | None) -> None:
    options = duty.plan.options
    if loaded is None:
        logs.configure(
            options, worker=number or None, color=duty.color, terminal=duty.terminal
        )
    else:
        logs.configure_after_project(
            options,
            loaded.logging,
            worker=number or None,
            color=duty.color,
            terminal=duty.terminal,
        )


@contextmanager
def _threads(options: Options) -> Iterator[Threads | None]:
    """The threads of this worker: after the event loop they end, and what they hold."""
    minimum, maximum = options.threads
    if not maximum:
        yield None
        return
    from djasgi.threads import Threads

    threads = Threads(minimum, maximum)
    try:
        yield threads
    finally:
        if not threads.close(THREADS_GRACE):
            logger.warning(
                "synchronous code still runs %g s after the last request", THREADS_GRACE
            )


async def _serve(
    duty: Duty,
    number: int,
    server: Server,
    loaded: Loaded,
    channel: Channel,
    threads: Threads | None,
) -> None:
    options = duty.plan.options
    stop = asyncio.Event()
    ending = _Ending(stop, options.graceful_timeout)
    channel.stop_with(asyncio.get_running_loop(), ending)
    application = wrap(loaded.application, loaded.middleware)
    lifespan = Lifespan(application, options.lifespan)
    if not await _unless(stop, lifespan.startup()):
        return
    try:
        composed = compose(
            application,
            options,
            state=lifespan.state if lifespan.supported else None,
            is_ready=lambda: channel.board.ready,
        )
        leases = _leases(threads)
        if options.warmup and not await _unless(
            stop, _warm_up(composed, leases, options)
        ):
            return
        # Not before: until somebody can answer, a client is to be refused.
        duty.listeners.listen()
        requests = Requests(composed, leases)
        vitals = Vitals(channel, options, requests, threads)
        vitals.beat()
        await server.serve(
            requests,
            options,
            duty.listeners.sockets,
            duty.tls,
            ready=lambda: channel.ready(debug=loaded.debug, notes=loaded.notes),
            stop=stop,
            linger=lambda: _linger(channel, options),
            requests=requests,
        )
    finally:
        left = ending.deadline - asyncio.get_running_loop().time()
        await lifespan.shutdown(SHUTDOWN_GRACE + max(0.0, left))


class _Ending:
    """Notes when the stop was asked for."""

    def __init__(self, stop: asyncio.Event, graceful_timeout: float) -> None:
        self.deadline = 0.0
        self._stop = stop
        self._graceful_timeout = graceful_timeout

    def __call__(self) -> None:
        if not self._stop.is_set():
            now = asyncio.get_running_loop().time()
            self.deadline = now + self._graceful_timeout
            self._stop.set()


def _linger(channel: Channel, options: Options) -> float:
    """Seconds that idle connections stay open at this stop."""
    asked = channel.board.linger
    return options.linger if asked is None else asked


def _leases(threads: Threads | None) -> Leases | None:
    if threads is None:
        return None
    from djasgi.threads.leases import Leases

    return Leases(threads)


async def _warm_up(application: App, leases: Leases | None, options: Options) -> None:
    from djasgi.warmup import warm_up

    await warm_up(application, options.warmup, leases)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether `work` has ended before `stop` was set, which cancels it."""
    task = asyncio.ensure_future(work)
    waiter = asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    if task.done():
        await task
        return True
    task.cancel()
    await asyncio.wait({task}, timeout=SHUTDOWN_GRACE)
    return False
