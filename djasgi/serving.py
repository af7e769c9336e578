"""What one worker does: an event loop, the application, and a server around it."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from djasgi import logs, servers
from djasgi.duty import Duty
from djasgi.layers.compose import compose, wrap
from djasgi.layers.lifespan import Lifespan
from djasgi.loading import Loaded, load
from djasgi.servers.base import Server

if TYPE_CHECKING:
    from djasgi.supervisor.worker import Channel

HEADROOM = 20
"""File descriptors that a loop, a server and the first clients need."""

SHUTDOWN_GRACE = 5.0
"""Seconds for the application's lifespan shutdown, after the requests have ended."""


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
    with asyncio.Runner(loop_factory=loop_factory(plan.options.loop)) as runner:
        # Before the project's root enters sys.path, where a file of the server's name
        # would shadow it; and before the project is imported, which may itself ask for
        # Twisted's reactor.
        server.prepare(runner.get_loop())
        _configure_logs(duty, number, None)
        loaded = load(plan)
        _configure_logs(duty, number, loaded)
        # What is imported stays: the first collection need not go through it.
        gc.freeze()
        gc.enable()
        runner.run(_serve(duty, number, server, loaded, channel))


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


async def _serve(
    duty: Duty, number: int, server: Server, loaded: Loaded, channel: Channel
) -> None:
    options = duty.plan.options
    stop = asyncio.Event()
    channel.stop_with(asyncio.get_running_loop(), stop.set)
    application = wrap(loaded.application, loaded.middleware)
    lifespan = Lifespan(application, options.lifespan)
    await lifespan.startup()
    try:
        # Not before: until somebody can answer, a client is to be refused.
        duty.listeners.listen()
        await server.serve(
            compose(
                application,
                options,
                state=lifespan.state if lifespan.supported else None,
            ),
            options,
            duty.listeners.sockets,
            duty.tls,
            ready=lambda: channel.ready(debug=loaded.debug, notes=loaded.notes),
            stop=stop,
        )
    finally:
        await lifespan.shutdown(SHUTDOWN_GRACE)
