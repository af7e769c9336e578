"""Startup and shutdown of the application."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Any

import pytest
from channels.routing import ProtocolTypeRouter
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler

from djasgi.errors import ExitCode, ProjectError
from djasgi.layers.asgi import App, Scope
from djasgi.layers.lifespan import Lifespan, State, has_no_lifespan

if not settings.configured:
    settings.configure()


@pytest.fixture(autouse=True)
def _plain_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is logged reaches caplog, whatever was configured in this process."""
    logger = logging.getLogger("djasgi")
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "handlers", [])


STARTED = {"type": "lifespan.startup.complete"}
STOPPED = {"type": "lifespan.shutdown.complete"}


def serve(app: App, mode: Any = "auto", timeout: float = 30) -> Lifespan:
    """Start, then shut down."""

    async def main() -> Lifespan:
        lifespan = Lifespan(app, mode)
        await lifespan.startup()
        await lifespan.shutdown(timeout)
        return lifespan

    return asyncio.run(main())


def failure(app: App, mode: Any = "auto") -> ProjectError:
    with pytest.raises(ProjectError) as caught:
        serve(app, mode)
    assert caught.value.exit_code is ExitCode.PROJECT
    return caught.value


async def good(scope: Scope, receive: Any, send: Any) -> None:
    assert (await receive())["type"] == "lifespan.startup"
    scope["state"]["pool"] = "a pool"
    await send(STARTED)
    assert (await receive())["type"] == "lifespan.shutdown"
    await send(STOPPED)


async def refusing(scope: Scope, receive: Any, send: Any) -> None:
    raise ValueError("only http")


async def raising(scope: Scope, receive: Any, send: Any) -> None:
    await receive()
    raise LookupError("no database")


async def returning(scope: Scope, receive: Any, send: Any) -> None:
    await receive()


def test_state_is_what_the_application_put_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lifespan = serve(good, "on")

    assert lifespan.supported
    assert lifespan.state == {"pool": "a pool"}
    assert caplog.records == []


def test_the_scope_is_that_of_the_specification() -> None:
    seen: dict[str, Any] = {}

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        seen.update(scope)
        await good(scope, receive, send)

    serve(app)

    assert seen["type"] == "lifespan"
    assert seen["asgi"] == {"version": "3.0", "spec_version": "2.0"}


class Subclass(ASGIHandler):
    """A handler of the project's own that answers as Django's does."""


@pytest.mark.parametrize(
    "make",
    [ASGIHandler, Subclass, lambda: ProtocolTypeRouter({"http": good})],
    ids=["django", "subclass", "channels"],
)
def test_django_and_channels_are_not_even_asked(
    make: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Error trackers patch `__call__` and would report what it raises."""
    caplog.set_level(logging.DEBUG, logger="djasgi")
    calls = []

    async def patched(self: Any, scope: Scope, receive: Any, send: Any) -> None:
        calls.append(scope)

    for owner in (ASGIHandler, ProtocolTypeRouter):
        monkeypatch.setattr(owner, "__call__", patched)

    lifespan = serve(make())

    assert not lifespan.supported
    assert calls == []
    assert caplog.messages == []


@pytest.mark.parametrize(
    "app", [ASGIHandler, lambda: ProtocolTypeRouter({})], ids=["django", "channels"]
)
def test_what_is_not_asked_would_indeed_raise(app: Any) -> None:
    assert has_no_lifespan(app())
    with pytest.raises(ValueError, match="lifespan"):
        asyncio.run(app()({"type": "lifespan"}, None, None))


def test_those_that_may_have_one_are_asked() -> None:
    class Own(ASGIHandler):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await good(scope, receive, send)

    assert serve(Own()).supported
    assert serve(ProtocolTypeRouter({"lifespan": good})).supported
    assert not has_no_lifespan(good)


@pytest.mark.parametrize("app", [refusing, returning], ids=["raises", "returns"])
def test_an_application_without_lifespan_is_served_silently(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="djasgi")

    lifespan = serve(app, "auto")

    assert not lifespan.supported
    assert caplog.messages == []


@pytest.mark.parametrize("app", [refusing, returning, ASGIHandler()])
def test_on_makes_it_an_error(app: App) -> None:
    error = failure(app, "on")

    assert error.message == "The application has no lifespan (--lifespan on)."
    assert "--lifespan auto" in error.hint


def test_off_does_not_ask() -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        raise AssertionError

    assert not serve(app, "off").supported


def test_raising_after_receive_is_a_failed_start_with_the_users_frames() -> None:
    error = failure(raising)

    assert error.message == "The application failed to start (lifespan.startup)."
    assert error.details.startswith("Traceback")
    assert error.details.endswith("LookupError: no database")
    assert __file__ in error.details
    assert "layers/lifespan.py" not in error.details


def test_startup_failed_is_a_failed_start_with_its_message() -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        raise LookupError

    assert failure(app).details == "no database"


def test_startup_failed_without_a_message_shows_what_was_raised() -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed"})
        raise LookupError("no database")

    assert failure(app).details.endswith("LookupError: no database")


def test_sys_exit_in_the_startup_is_a_failed_start() -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        raise SystemExit(7)

    assert "SystemExit: 7" in failure(app).details


def test_an_application_that_cancels_itself_has_failed_to_start() -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        raise asyncio.CancelledError

    assert failure(app).details


def test_an_unknown_message_is_the_applications_fault() -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.ready"})

    assert "'lifespan.ready'" in failure(app).details


def test_startup_and_shutdown_run_in_one_task_and_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    tasks = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        token = variable.set("value")
        tasks.append(asyncio.current_task())
        # A cancel scope that spans the life of the application, as anyio's do.
        async with asyncio.timeout(600):
            await send(STARTED)
            await receive()
        tasks.append(asyncio.current_task())
        variable.reset(token)
        await send(STOPPED)

    serve(app)

    assert len(set(tasks)) == 1


def test_what_the_application_does_after_its_last_message_is_awaited() -> None:
    done = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        try:
            await good(scope, receive, send)
        finally:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            done.append(True)

    serve(app)

    assert done == [True]


def test_an_application_that_never_stops_receiving_delays_nothing() -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})

    lifespan = serve(app, timeout=3600)

    assert lifespan.supported


def test_a_shutdown_that_hangs_is_bounded_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cancelled = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send(STARTED)
        await receive()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    serve(app, timeout=0.01)

    assert cancelled == [True]
    assert "did not shut down within 0.01 s" in caplog.text


def test_shutdown_failed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send(STARTED)
        await receive()
        await send({"type": "lifespan.shutdown.failed", "message": "queue not empty"})

    serve(app)

    assert caplog.messages == ["The application failed to shut down: queue not empty"]


def test_a_shutdown_that_raises_is_logged_with_the_users_frames(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        await send(STARTED)
        await receive()
        raise LookupError("queue not empty")

    serve(app)

    assert caplog.messages == ["The application failed to shut down"]
    assert "LookupError: queue not empty" in caplog.text
    assert "layers/lifespan.py" not in caplog.text


def test_a_lifespan_that_fails_while_serving_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks: list[Any] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        tasks.append(asyncio.current_task())
        await send(STARTED)
        await asyncio.sleep(0)
        raise LookupError("background task")

    async def main() -> None:
        lifespan = Lifespan(app, "auto")
        await lifespan.startup()
        await asyncio.wait(tasks)
        await lifespan.shutdown(30)

    asyncio.run(main())

    assert caplog.messages == ["The application's lifespan failed while it was serving"]
    assert "background task" in caplog.text


def test_cancelling_the_startup_cancels_the_application() -> None:
    waiting = asyncio.Event()
    events = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        await receive()
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            events.append("cancelled")

    async def main() -> None:
        task = asyncio.create_task(Lifespan(app, "auto").startup())
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())

    assert events == ["cancelled"]


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_each_connection_has_a_shallow_copy_of_the_state(kind: str) -> None:
    state = {"pool": object()}
    scope: Scope = {"type": kind, "state": {"of": "the server"}}
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        seen.append(scope)
        scope["state"]["mine"] = True

    asyncio.run(State(app, state)(scope, None, None))  # type: ignore[arg-type]

    assert seen[0]["state"]["pool"] is state["pool"]
    assert list(state) == ["pool"]
