"""A Django project made for one case, which writes down all that happens in it.

The same case is run with Django's handler and with djasgi's: the two traces have to be
equal. An event is what, who, where (on the loop, in the thread of the request, in another
one), and which context variables, `asgiref.local.Local`s and thread-locals are seen.
"""

from __future__ import annotations

import asyncio
import contextvars
import io
import logging
import sys
import threading
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from asgiref.local import Local
from asgiref.sync import (
    async_to_sync,
    iscoroutinefunction,
    markcoroutinefunction,
    sync_to_async,
)
from django.core.exceptions import (
    BadRequest,
    MiddlewareNotUsed,
    PermissionDenied,
    SuspiciousOperation,
)
from django.core.handlers.base import reset_urlconf
from django.core.signals import got_request_exception, request_finished, request_started
from django.db import connection, connections, transaction
from django.http import FileResponse, Http404, HttpResponse, StreamingHttpResponse
from django.template.response import SimpleTemplateResponse
from django.test import override_settings
from django.urls import get_urlconf, path
from django.utils.decorators import async_only_middleware, sync_and_async_middleware
from django.utils.deprecation import MiddlewareMixin

from djasgi.handler.strand import has_loop
from djasgi.layers.requests import Exchange, Requests
from djasgi.threads import Threads
from tests.support.leases import with_lease

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")
LOCAL = Local()
THREAD_LOCAL = threading.local()

MODULE = "differential_project"

ERRORS: dict[str, Callable[[], Exception]] = {
    "value": lambda: ValueError("value"),
    "404": lambda: Http404("not here"),
    "403": lambda: PermissionDenied("no"),
    "400": lambda: BadRequest("bad"),
    "suspicious": lambda: SuspiciousOperation("suspicious"),
}


@dataclass(frozen=True)
class Layer:
    """One middleware: its style, its hooks, and what each of them does."""

    style: str
    hooks: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Case:
    """One project and one request to it."""

    layers: tuple[Layer, ...] = ()
    view: str = "sync"
    action: str = "respond"
    debug: bool = False
    atomic: bool = False
    body: str = "none"
    query: bytes = b"a=1"
    receivers: tuple[str, ...] = ("started", "finished")
    error_handlers: str = "plain"
    propagate: bool = False
    disconnect: str = ""


@dataclass
class World:
    """What happens in one run of a case."""

    case: Case
    events: list[Any] = field(default_factory=list)
    thread: int | None = None
    loop: Any = None
    gone: Any = None
    settled: threading.Event = field(default_factory=threading.Event)
    disconnected: bool = False
    body: Any = None
    kept: Any = None

    def note(self, what: str, who: str, *details: Any, anywhere: bool = False) -> None:
        """Write an event down. `anywhere`: where it happens is a deliberate difference."""
        if has_loop():
            where = "loop"
        else:
            here = threading.get_ident()
            if anywhere:
                where = "thread"
            else:
                if self.thread is None:
                    self.thread = here
                where = "thread" if here == self.thread else "another thread"
        if what == "log" and "UnicodeDecodeError" in details:
            where = "anywhere"  # the request is made on the loop, or in the thread
        seen = (
            VARIABLE.get(),
            getattr(LOCAL, "value", ""),
            "" if anywhere else getattr(THREAD_LOCAL, "value", ""),
        )
        self.events.append((what, who, where, seen, details))

    def leave(self, who: str) -> None:
        """Be the client that goes away just now, and wait until that has been seen."""
        if self.disconnected:
            return
        self.disconnected = True
        self.loop.call_soon_threadsafe(self._leave)
        if not has_loop():
            assert self.settled.wait(20)

    async def waits(self, who: str) -> None:
        """Wait for something when the client goes away, if it does so here."""
        if self.case.disconnect == who and not self.disconnected:
            self.leave(who)
            try:
                await asyncio.sleep(20)
            except asyncio.CancelledError:
                self.note("cancelled", who)
                raise

    def _leave(self) -> None:
        self.gone.set()
        self.loop.create_task(self._settle())

    async def _settle(self) -> None:
        for _ in range(40):
            await asyncio.sleep(0)
        self.settled.set()

    def act(self, who: str, action: str) -> Any:
        """Do what a hook or view is to do: what it returns, or it raises."""
        # On the loop, what comes next would be a race.
        if self.case.disconnect == who and not self.disconnected and not has_loop():
            self.leave(who)
            self.note("went on", who)
            if action == "set":
                # A deliberate difference: with Django, synchronous middleware does not
                # see the context variables of a step that was given up.
                return None
        if action.startswith("raise "):
            error = ERRORS[action.removeprefix("raise ")]()
            raise error
        if action == "set":
            VARIABLE.set(who)
            LOCAL.value = who
            THREAD_LOCAL.value = who
        elif action == "respond":
            return HttpResponse(f"from {who}")
        elif action == "template":
            return Template(self, who, "respond")
        elif action == "falsy":
            return ""
        elif action == "nested" and not has_loop():
            async_to_sync(sync_to_async(lambda: self.note("nested", who)))()
        elif action == "query":
            connection.ensure_connection()
            self.note("in a transaction", who, connection.in_atomic_block)
        return None


class Template(SimpleTemplateResponse):
    """A response that is rendered later, without a template engine."""

    def __init__(self, world: World, who: str, action: str) -> None:
        self.world, self.who, self.action = world, who, action
        super().__init__("none")

    @property
    def rendered_content(self) -> str:
        """Render."""
        self.world.note("render", self.who, type(sys.exc_info()[1]).__name__)
        self.world.act(f"{self.who}.render", self.action)
        return f"rendered by {self.who}"


def hook(world: World, who: str, name: str, action: str, *, asynchronous: bool) -> Any:
    """A hook that notes that it was called, and acts."""

    def called(self: Any, *arguments: Any, **kwargs: Any) -> Any:
        shown = [type(argument).__name__ for argument in arguments]
        error = type(sys.exc_info()[1]).__name__
        status = getattr(arguments[-1], "status_code", None) if arguments else None
        world.note(name, who, shown, sorted(kwargs), error, status)
        value = world.act(f"{who}.{name}", action)
        if name in {"process_response", "process_template_response"} and action in {
            "set",
            "pass",
            "query",
            "nested",
        }:
            return arguments[-1]
        return value

    async def awaited(self: Any, *arguments: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(0)
        await world.waits(f"{who}.{name}")
        return called(self, *arguments, **kwargs)

    chosen = awaited if asynchronous else called
    chosen.__name__ = name
    chosen.__qualname__ = f"{who}.{name}"
    return chosen


def members(world: World, who: str, layer: Layer) -> dict[str, Any]:
    """The hooks of a middleware, by name."""
    return {
        name: hook(
            world,
            who,
            name,
            action.removeprefix("async "),
            asynchronous=action.startswith("async "),
        )
        for name, action in layer.hooks
        if name.startswith("process_")
    }


def around(
    world: World, who: str, layer: Layer
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The body of a middleware of one's own: synchronous and asynchronous."""
    actions = dict(layer.hooks)
    before, after = actions.get("before", "pass"), actions.get("after", "pass")

    def sync(get_response: Any, request: Any) -> Any:
        world.note("before", who)
        response = world.act(f"{who}.before", before)
        try:
            if response is None:
                response = get_response(request)
                if after == "again":
                    response = get_response(request)
        except BaseException as error:
            world.note("escaped", who, type(error).__name__)
            if after != "swallow":
                raise
            return HttpResponse("swallowed")
        finally:
            world.note("after", who)
        other = world.act(f"{who}.after", after)
        return response if other is None else other

    async def asynchronous(get_response: Any, request: Any) -> Any:
        world.note("before", who)
        await world.waits(f"{who}.before")
        response = world.act(f"{who}.before", before)
        try:
            if response is None:
                if after == "task":
                    response = await asyncio.create_task(get_response(request))
                elif after == "timeout":
                    response = await asyncio.wait_for(get_response(request), 20)
                else:
                    response = await get_response(request)
                if after == "again":
                    response = await get_response(request)
        except BaseException as error:
            world.note("escaped", who, type(error).__name__)
            if after != "swallow":
                raise
            return HttpResponse("swallowed")
        finally:
            world.note("after", who)
        await world.waits(f"{who}.after")
        other = world.act(f"{who}.after", after)
        return response if other is None else other

    return sync, asynchronous


def middleware(world: World, number: int, layer: Layer) -> Any:
    """The middleware of a layer."""
    who = f"m{number}"
    sync, asynchronous = around(world, who, layer)
    hooks = members(world, who, layer)

    def made(get_response: Any) -> None:
        world.note("made", who, iscoroutinefunction(get_response))

    def init(self: Any, get_response: Any) -> None:
        made(get_response)
        self.get_response = get_response

    def mixin_init(self: Any, get_response: Any) -> None:
        made(get_response)
        MiddlewareMixin.__init__(self, get_response)

    match layer.style:
        case "mixin":
            return type(who, (MiddlewareMixin,), {"__init__": mixin_init, **hooks})
        case "mixin call":

            def call(self: Any, request: Any) -> Any:
                world.note("call", who)
                return MiddlewareMixin.__call__(self, request)

            return type(
                who,
                (MiddlewareMixin,),
                {"__init__": mixin_init, "__call__": call, **hooks},
            )
        case "mixin acall":

            async def acall(self: Any, request: Any) -> Any:
                world.note("acall", who)
                return await MiddlewareMixin.__acall__(self, request)

            return type(
                who,
                (MiddlewareMixin,),
                {"__init__": mixin_init, "__acall__": acall, **hooks},
            )
        case "mixin sync":
            return type(
                who,
                (MiddlewareMixin,),
                {"__init__": mixin_init, "async_capable": False, **hooks},
            )
        case "mixin async":
            return type(
                who,
                (MiddlewareMixin,),
                {"__init__": mixin_init, "sync_capable": False, **hooks},
            )
        case "function":

            def function(get_response: Any) -> Any:
                made(get_response)
                return lambda request: sync(get_response, request)

            return function
        case "class":
            return type(
                who,
                (),
                {
                    "__init__": init,
                    "__call__": lambda self, request: sync(self.get_response, request),
                    **hooks,
                },
            )
        case "both":

            @sync_and_async_middleware
            def both(get_response: Any) -> Any:
                made(get_response)
                if iscoroutinefunction(get_response):

                    async def inner(request: Any) -> Any:
                        return await asynchronous(get_response, request)

                    return inner
                return lambda request: sync(get_response, request)

            return both
        case "async function":

            @async_only_middleware
            def async_only(get_response: Any) -> Any:
                made(get_response)

                async def inner(request: Any) -> Any:
                    return await asynchronous(get_response, request)

                return inner

            return async_only
        case "async class" | "unmarked":

            def async_init(self: Any, get_response: Any) -> None:
                init(self, get_response)
                if layer.style == "async class":
                    markcoroutinefunction(self)

            async def async_call(self: Any, request: Any) -> Any:
                return await asynchronous(self.get_response, request)

            return type(
                who,
                (),
                {
                    "async_capable": True,
                    "sync_capable": False,
                    "__init__": async_init,
                    "__call__": async_call,
                    **hooks,
                },
            )
        case "not used":

            def refuse(get_response: Any) -> Any:
                made(get_response)
                raise MiddlewareNotUsed("not today")

            return refuse
    raise AssertionError(layer.style)


def view(world: World) -> Any:
    """The view of the case."""
    case = world.case
    action = case.action

    def noted(request: Any) -> None:
        world.note("view", case.view, request.method, request.path_info, get_urlconf())

    def own() -> Any:
        """What is returned instead of the view's own response, if anything."""
        return world.act("view", "pass" if action == "respond" else action)

    def sync(request: Any) -> Any:
        noted(request)
        return world.act("view", action)

    async def asynchronous(request: Any) -> Any:
        noted(request)
        await asyncio.sleep(0)
        await world.waits("view")
        return world.act("view", action)

    def template(request: Any) -> Any:
        noted(request)
        return Template(world, "view", action)

    async def async_template(request: Any) -> Any:
        noted(request)
        await world.waits("view")
        return Template(world, "view", action)

    def back(request: Any) -> Any:
        noted(request)

        async def inner() -> Any:
            world.note("inner", "view")
            await asyncio.sleep(0)
            await sync_to_async(world.note)("innermost", "view")
            await world.waits("view")
            return world.act("view", action)

        return async_to_sync(inner)()

    async def forth(request: Any) -> Any:
        noted(request)

        def inner() -> Any:
            world.note("inner", "view")
            return world.act("view", action)

        return await sync_to_async(inner)()

    def reading(request: Any) -> Any:
        noted(request)
        files = {name: file.read() for name, file in request.FILES.items()}
        world.note("read", "view", dict(request.POST), dict(request.GET), files)
        return own() or HttpResponse("read")

    def body(request: Any) -> Any:
        noted(request)
        world.note("body", "view", request.body)
        return own() or HttpResponse("body")

    def streaming(request: Any) -> Any:
        noted(request)

        def parts() -> Any:
            world.note("part", "view")
            yield "one"
            yield "two"

        return own() or StreamingHttpResponse(parts())

    async def async_streaming(request: Any) -> Any:
        noted(request)
        await world.waits("view")

        async def parts() -> Any:
            world.note("part", "view")
            yield "one"
            await sync_to_async(world.note)("part in thread", "view")
            yield "two"

        return own() or StreamingHttpResponse(parts())

    def file(request: Any) -> Any:
        noted(request)

        class File(io.BytesIO):
            def close(self) -> None:
                if not self.closed:
                    world.note("file closed", "view")
                super().close()

        world.kept = File(b"x" * 100)  # from the garbage collector, which closes too
        return own() or FileResponse(world.kept)

    def closing(request: Any) -> Any:
        noted(request)

        class Response(HttpResponse):
            def close(self) -> None:
                world.note("closed", "response")
                super().close()

        return own() or Response("closing")

    def closers(request: Any) -> Any:
        noted(request)
        response = own() or HttpResponse("closers")
        if isinstance(response, HttpResponse):
            cast("Any", response)._resource_closers.append(
                lambda: world.note("closer", "response")
            )
        return response

    def coroutine(request: Any) -> Any:
        noted(request)
        made = asynchronous(request)
        made.close()
        return made

    class AsyncInstance:
        async def __call__(self, request: Any) -> Any:
            return await asynchronous(request)

    class Instance:
        def __call__(self, request: Any) -> Any:
            return sync(request)

    class Marked(AsyncInstance):
        def __init__(self) -> None:
            markcoroutinefunction(self)

    def callback(request: Any) -> Any:
        noted(request)
        transaction.on_commit(lambda: world.note("committed", "view"))
        connection.ensure_connection()
        world.note("atomic", "view", connection.in_atomic_block)
        return world.act("view", action)

    @transaction.non_atomic_requests
    def non_atomic(request: Any) -> Any:
        noted(request)
        connection.ensure_connection()
        world.note("atomic", "view", connection.in_atomic_block)
        return world.act("view", action)

    views = {
        "sync": sync,
        "async": asynchronous,
        "template": template,
        "async template": async_template,
        "back": back,
        "forth": forth,
        "reading": reading,
        "body": body,
        "streaming": streaming,
        "async streaming": async_streaming,
        "file": file,
        "closing": closing,
        "closers": closers,
        "coroutine": coroutine,
        "async instance": AsyncInstance(),
        "instance": Instance(),
        "marked": Marked(),
        "callback": callback,
        "non atomic": non_atomic,
    }
    return views[case.view]


VIEWS = (
    "sync", "async", "template", "async template", "back", "forth", "reading", "body",
    "streaming", "async streaming", "file", "closing", "closers", "coroutine",
    "async instance", "instance", "marked", "callback", "non atomic", "missing",
)  # fmt: skip


def error_handler(world: World, status: int) -> Any:
    """handler404 and its like."""

    def handle(request: Any, exception: Any = None) -> Any:
        error = type(sys.exc_info()[1]).__name__
        world.note("error handler", str(status), error, anywhere=True)
        if world.case.error_handlers == "raising":
            raise RuntimeError("in the error handler")
        if world.case.error_handlers == "set":
            VARIABLE.set(f"handler{status}")
        return HttpResponse(f"error {status}", status=status)

    return handle


class Logs(logging.Handler):
    """Log records, as events."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "django.db.backends":
            return  # with durations
        error = type(record.exc_info[1]).__name__ if record.exc_info else None
        self.world.note(
            "log",
            record.name,
            record.levelname,
            record.getMessage(),
            error,
            getattr(record, "status_code", None),
            anywhere=True,
        )


def receivers(world: World) -> list[tuple[Any, Any]]:
    """The receivers of signals that the case asks for, with their signals."""
    signals = {
        "started": request_started,
        "finished": request_finished,
        "exception": got_request_exception,
    }

    def receiver(name: str) -> Any:
        signal, _, action = name.partition(" ")

        def receive(sender: Any, **named: Any) -> None:
            named.pop("signal", None)
            shown = (
                None if sender is None else f"{sender.__module__}.{sender.__qualname__}"
            )
            world.note(
                "signal", signal, shown, sorted(named), anywhere=signal == "exception"
            )
            if action == "set":
                VARIABLE.set(name)
                LOCAL.value = name
            elif action == "raise":
                raise ValueError(name)
            elif action == "leave":
                world.leave(name)

        async def receive_async(sender: Any, **named: Any) -> None:
            receive(sender, **named)

        return receive_async if action == "async" else receive

    return [
        (signals[name.partition(" ")[0]], receiver(name))
        for name in world.case.receivers
    ]


def keeping_body(world: World, read_body: Any) -> Any:
    """`read_body`, which shows the world the file that it makes."""

    async def reading(receive: Any) -> Any:
        world.body = await read_body(receive)
        return world.body

    return reading


BODIES: dict[str, tuple[list[tuple[bytes, bytes]], list[bytes]]] = {
    "none": ([], [b""]),
    "form": (
        [(b"content-type", b"application/x-www-form-urlencoded")],
        [b"p=1", b"&q=2"],
    ),
    "upload": (
        [(b"content-type", b"multipart/form-data; boundary=x")],
        [
            b'--x\r\nContent-Disposition: form-data; name="f"; filename="n"\r\n\r\n',
            b"content\r\n--x--\r\n",
        ],
    ),
    "broken": ([(b"content-type", b"multipart/form-data; boundary=")], [b"--x"]),
    "large": (
        [(b"content-type", b"application/x-www-form-urlencoded")],
        [b"p=" + b"x" * 3_000_000],
    ),
}


def trace(handler: Callable[[], Any], case: Case, *, served: bool = False) -> list[Any]:
    """All that happens when `handler()` makes the application and it gets the request.

    `served` is whether djasgi's layers are around it, as below a server.
    """
    world = World(case)
    module = types.ModuleType(MODULE)
    names = []
    for number, layer in enumerate(case.layers):
        setattr(module, f"m{number}", middleware(world, number, layer))
        names.append(f"{MODULE}.m{number}")
    if case.view != "missing":
        module.urlpatterns = [path("page/", view(world))]  # type: ignore[attr-defined]
    else:
        module.urlpatterns = []  # type: ignore[attr-defined]
    if case.error_handlers != "none":
        for status in (400, 403, 404, 500):
            setattr(module, f"handler{status}", error_handler(world, status))
    connected = receivers(world)
    logs = Logs(world)
    logger = logging.getLogger("django")
    level, handlers, propagate = logger.level, logger.handlers[:], logger.propagate
    sys.modules[MODULE] = module
    databases = connections.settings["default"]
    before = databases["ATOMIC_REQUESTS"]
    VARIABLE.set("")
    THREAD_LOCAL.value = ""
    try:
        logger.setLevel(logging.DEBUG)
        logger.handlers[:] = [logs]
        logger.propagate = False
        databases["ATOMIC_REQUESTS"] = case.atomic
        for signal, receiver in connected:
            signal.connect(receiver, weak=False)
        with override_settings(
            MIDDLEWARE=names,
            ROOT_URLCONF=MODULE,
            DEBUG=case.debug,
            DEBUG_PROPAGATE_EXCEPTIONS=case.propagate,
        ):
            application = handler()
            world.thread = None  # that was the one that loads
            application.read_body = keeping_body(world, application.read_body)
            with asyncio.Runner(debug=False) as runner:
                runner.run(_request(world, application, served=served))
    finally:
        for signal, receiver in connected:
            signal.disconnect(receiver)
        databases["ATOMIC_REQUESTS"] = before
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate = propagate
        sys.modules.pop(MODULE, None)
    return list(world.events)


def request_finished_is_seen(case: Case) -> bool:
    """Whether anybody sees if the response is closed before it is sent, or after."""
    return any(name.startswith("finished") for name in case.receivers)


async def _request(world: World, application: Any, *, served: bool) -> None:
    case = world.case
    world.loop, world.gone = asyncio.get_running_loop(), asyncio.Event()
    headers, parts = BODIES[case.body]
    length = str(sum(map(len, parts))).encode()
    scope = {
        "type": "http",
        "method": "GET" if case.body == "none" else "POST",
        "path": "/page/",
        "root_path": "",
        "query_string": case.query,
        "headers": [(b"host", b"example.com"), (b"content-length", length), *headers],
        "server": ("example.com", 80),
        "client": ("127.0.0.1", 1),
    }
    waiting = [
        {"type": "http.request", "body": part, "more_body": number + 1 < len(parts)}
        for number, part in enumerate(parts)
    ]

    async def receive() -> Any:
        if waiting:
            return waiting.pop(0)
        await world.gone.wait()
        return {"type": "http.disconnect"}

    shown = False

    async def send(message: Any) -> None:
        nonlocal shown
        if message["type"] == "http.response.start":
            # The pages for developers show frames.
            shown = not case.debug or message["status"] < 400
            headers = [
                h for h in message["headers"] if shown or h[0] != b"Content-Length"
            ]
            closed = world.body.closed if request_finished_is_seen(case) else None
            world.note("send", "start", message["status"], headers, closed)
        elif shown:
            world.note("send", "body", message.get("body"), message.get("more_body"))
        if case.disconnect == "send":
            world.leave("send")
            await asyncio.sleep(0.01)

    threads = Threads(1, 16)
    listens: Any = receive
    if served:
        application = with_lease(application, threads)
        listens = Exchange(Requests(application), scope, receive, send).receive
    try:
        await application(scope, listens, send)
    except BaseException as error:  # noqa: BLE001
        world.note("raised", "application", type(error).__name__, str(error))
    world.note("end", "application", world.body.closed)
    # Django leaves it to the garbage collector if a receiver of request_started raises.
    world.body.close()
    await asyncio.to_thread(threads.close, 20)


assert callable(
    reset_urlconf
)  # the module that connects Django's own receivers is imported
