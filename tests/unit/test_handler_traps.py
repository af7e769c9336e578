"""Where a handler with fewer hops could differ from Django's, one by one.

The differential test compares whole traces; here is what each of them has to show.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.core.handlers import asgi, base
from django.core.signals import request_finished, request_started
from django.db import connection
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path, register_converter
from django.utils.deprecation import MiddlewareMixin

import djasgi
from djasgi.handler import ASGIHandler, exchange, get_asgi_application
from djasgi.layers.requests import Requests
from tests.differential.world import Case, Layer, trace
from tests.support.asgi import Client
from tests.support.django_settings import configure

configure()

MODULE = "trap_project"
PACKAGE = str(Path(djasgi.__file__).parent)

BOTH = pytest.mark.parametrize(
    "handler", [asgi.ASGIHandler, ASGIHandler], ids=["django", "djasgi"]
)


def same(case: Case) -> list[Any]:
    """The trace of a case, which is the same under both handlers."""
    theirs, ours = trace(asgi.ASGIHandler, case), trace(ASGIHandler, case)
    assert ours == theirs
    return ours


def who(events: list[Any], what: str) -> list[str]:
    """Who did this, in order."""
    return [event[1] for event in events if event[0] == what]


def where(events: list[Any], what: str) -> list[str]:
    """Where this happened, in order."""
    return [event[2] for event in events if event[0] == what]


def mixin(**hooks: str) -> Layer:
    return Layer(
        "mixin", tuple((f"process_{name}", action) for name, action in hooks.items())
    )


@pytest.fixture
def project() -> Iterator[Any]:
    """A module that is URLconf and middleware at once."""
    module: Any = types.ModuleType(MODULE)
    module.urlpatterns = []
    sys.modules[MODULE] = module
    with override_settings(ROOT_URLCONF=MODULE, MIDDLEWARE=[], DEBUG=False):
        yield module
    del sys.modules[MODULE]


def serve(project: Any, view: Any, *middleware: Any, pattern: str = "page/") -> None:
    """Settle the settings for one view behind some middleware."""
    project.urlpatterns = [path(pattern, view)]
    names = []
    for number, each in enumerate(middleware):
        setattr(project, f"m{number}", each)
        names.append(f"{MODULE}.m{number}")
    from django.conf import settings

    settings.MIDDLEWARE = names


# 1


def test_each_middleware_is_made_once() -> None:
    layers = (
        mixin(request="pass"),
        Layer("both"),
        Layer("not used"),
        Layer("function"),
    )
    events = same(Case(layers=layers))
    assert who(events, "made") == ["m3", "m2", "m1", "m0"]


# 2, 3


def test_asynchronous_middleware_that_is_not_marked_stays_as_broken_as_it_is() -> None:
    for action in ("pass", "raise value"):
        unmarked = Layer("unmarked", (("before", action), ("after", "pass")))
        events = same(Case(layers=(mixin(request="pass"), unmarked)))
        modes = {event[1]: event[4] for event in events if event[0] == "made"}
        assert modes == {"m1": (True,), "m0": (False,)}
        same(Case(layers=(unmarked, mixin(response="pass"))))


# 4


def _note(called: list[str], name: str, *_: Any) -> None:
    called.append(name)


def test_hooks_are_looked_up_when_django_looks_them_up(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Middleware(MiddlewareMixin):
        def process_view(self, *_: Any) -> None:
            pass

    serve(project, lambda request: HttpResponse(), Middleware)
    for handler in (asgi.ASGIHandler, ASGIHandler):
        called: list[str] = []
        application = handler()
        with monkeypatch.context() as patched:
            for name in ("process_request", "process_view"):
                hook = staticmethod(partial(_note, called, name))
                patched.setattr(Middleware, name, hook, raising=False)
            assert Client(application).get() == 200
        assert called == ["process_request"]


@pytest.mark.parametrize(
    ("layer", "hops"),
    [
        (mixin(request="pass", response="pass"), 1),
        (Layer("mixin call", (("process_request", "pass"),)), 4),
        (Layer("mixin acall", (("process_request", "pass"),)), 4),
        (Layer("both"), 3),
        (Layer("function"), 1),
        (Layer("mixin sync", (("process_request", "pass"),)), 1),
    ],
)
def test_only_plain_hooks_are_fused(layer: Layer, hops: int, project: Any) -> None:
    from tests.differential.world import World, middleware

    world = World(Case())
    serve(project, lambda request: HttpResponse(), middleware(world, 0, layer))
    client = Client(ASGIHandler())
    assert client.get() == 200
    assert len(client.hops) == hops


# 5


def test_short_circuit_runs_its_own_process_response() -> None:
    outer = mixin(request="pass", response="pass")
    inner = mixin(request="respond", response="pass")
    events = same(Case(layers=(outer, inner, mixin(request="pass", response="pass"))))
    assert who(events, "process_response") == ["m1", "m0"]
    assert who(events, "view") == []
    raising = mixin(request="raise value", response="pass")
    events = same(Case(layers=(outer, raising)))
    assert who(events, "process_response") == ["m0"]


# 6, 7


def test_synchronous_middleware_does_not_split_the_hop(project: Any) -> None:
    def function(get_response: Any) -> Any:
        def middleware(request: Any) -> Any:
            return get_response(request)

        return middleware

    class Middleware(MiddlewareMixin):
        def process_request(self, request: Any) -> None:
            pass

    stack = (Middleware, function, Middleware, function, Middleware)
    serve(project, lambda request: HttpResponse(), *stack)
    client = Client(ASGIHandler())
    assert client.get() == 200
    assert len(client.hops) == 1


def test_middleware_that_can_do_both_runs_its_asynchronous_half() -> None:
    events = same(
        Case(layers=(mixin(request="pass"), Layer("both"), mixin(request="pass")))
    )
    assert where(events, "before") == ["loop"]
    assert where(events, "process_request") == ["thread", "thread"]


# 8


class Noted:
    """A converter that notes where it runs."""

    regex = "[a-z]+"
    places: list[str] = []  # noqa: RUF012

    def to_python(self, value: str) -> str:
        try:
            connection.ensure_connection()
        except Exception as error:
            self.places.append(type(error).__name__)
            raise
        self.places.append("thread")
        return value

    def to_url(self, value: str) -> str:
        return value


@BOTH
def test_url_converters_may_use_the_database(
    handler: type, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deliberate difference: Django resolves on the loop."""
    from django.urls import converters

    monkeypatch.setattr(Noted, "places", [])
    monkeypatch.setattr(converters, "REGISTERED_CONVERTERS", {})
    clear: Any = converters.get_converters
    clear.cache_clear()
    register_converter(Noted, "noted")
    middleware = type("M", (MiddlewareMixin,), {"process_request": lambda *_: None})
    serve(
        project,
        lambda request, name: HttpResponse(),
        middleware,
        pattern="<noted:name>/",
    )
    connection.close()

    status = Client(handler()).get("/page/")

    clear.cache_clear()
    if handler is ASGIHandler:
        assert (status, Noted.places) == (200, ["thread"])
    else:
        assert (status, Noted.places) == (500, ["SynchronousOnlyOperation"])


def test_asynchronous_view_is_awaited_on_the_loop(project: Any) -> None:
    """Also behind a URLconf that middleware has chosen."""
    loops: list[Any] = []

    async def view(request: Any) -> HttpResponse:
        loops.append(asyncio.get_running_loop())
        return HttpResponse()

    other: Any = types.ModuleType("other_urls")
    other.urlpatterns = [path("page/", view)]

    class Middleware(MiddlewareMixin):
        def process_request(self, request: Any) -> None:
            request.urlconf = other

        def process_response(self, request: Any, response: Any) -> Any:
            return response

    serve(project, lambda request: None, Middleware)
    client = Client(ASGIHandler())
    assert client.get() == 200
    assert len(loops) == 1
    assert len(client.hops) == 2


# 9


def test_asynchronous_hooks_around_the_view_are_left_to_django() -> None:
    events = same(Case(layers=(mixin(view="async pass"), mixin(request="pass"))))
    assert where(events, "process_view") == ["loop"]
    same(Case(layers=(mixin(template_response="async pass"),), view="template"))


def test_instance_with_an_asynchronous_call_is_no_view() -> None:
    events = same(Case(view="async instance"))
    assert "TypeError" in [event[4][2] for event in events if event[0] == "log"]


# 10


def test_contexts() -> None:
    """What is set where, and who sees it."""
    started = same(Case(receivers=("started set", "finished")))
    view = next(event for event in started if event[0] == "view")
    assert view[3][0] == ("" if exchange.APART else "started set")
    events = same(Case(layers=(mixin(request="set"),), view="async streaming"))
    part = next(event for event in events if event[0] == "part")
    assert part[3][0] == "m0.process_request"
    finished = next(e for e in events if e[:2] == ("signal", "finished"))
    assert finished[3][0] == ("" if exchange.APART else "m0.process_request")


# 11


@BOTH
def test_errors_are_handled_in_the_thread_of_the_request(
    handler: type, project: Any
) -> None:
    """A deliberate difference: in Django's threads, nobody closes connections."""
    threads: dict[str, int] = {}

    def view(request: Any) -> None:
        threads["view"] = threading.get_ident()
        raise ValueError

    def handler500(request: Any) -> HttpResponse:
        threads["handler500"] = threading.get_ident()
        return HttpResponse(status=500)

    project.handler500 = handler500
    serve(project, view)
    assert Client(handler()).get() == 500
    alike = threads["view"] == threads["handler500"]
    assert alike is (handler is ASGIHandler)


# 12, 13, 14


@pytest.mark.parametrize("view", ["sync", "closing", "async", "back"])
def test_client_that_goes_away_during_the_view(view: str) -> None:
    events = same(
        Case(
            layers=(mixin(request="pass", response="pass"),),
            view=view,
            disconnect="view",
        )
    )
    assert who(events, "process_response") == []
    assert who(events, "closed") == []
    assert who(events, "send") == []
    assert who(events, "signal") == ["started", "finished"]


@pytest.mark.parametrize("after", ["pass", "again", "swallow"])
def test_client_that_goes_away_below_synchronous_middleware(after: str) -> None:
    """Work under way is cancelled; what the middleware starts later is not."""
    function = Layer("function", (("before", "pass"), ("after", after)))
    below = mixin(request="pass", response="pass")
    events = same(Case(layers=(function, below), disconnect="m1.process_request"))
    assert ("escaped", "m0") in [event[:2] for event in events]
    same(Case(layers=(function, function, below), disconnect="m2.process_request"))
    same(Case(layers=(function, below, function), disconnect="view"))
    same(Case(layers=(function, below), view="async", disconnect="view"))


def test_client_that_goes_away_during_request_started() -> None:
    """With Django the next step has begun by then, or not; here it has not."""
    case = Case(
        layers=(mixin(request="pass"), mixin(request="pass")),
        receivers=("started leave", "finished"),
    )
    events = trace(ASGIHandler, case)
    assert who(events, "process_request") == []
    assert who(events, "signal") == ["started", "finished"]
    assert events[-1][4] == (True,)  # the body is closed
    assert who(trace(asgi.ASGIHandler, case), "process_request") in ([], ["m0"])


@pytest.mark.parametrize("late", [False, True])
def test_request_finished_is_sent_once(
    late: bool, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the client goes away while the response is being closed in the hop."""
    finished: list[str] = []
    closing, gone = threading.Event(), threading.Event()

    def receiver(**_: Any) -> None:
        finished.append("finished")
        if late:
            closing.set()
            assert gone.wait(20)

    request_finished.connect(receiver)
    monkeypatch.setattr(exchange, "UNOBSERVABLE", exchange.UNOBSERVABLE | {receiver})
    serve(project, lambda request: HttpResponse())
    messages = [{"type": "http.request"}]

    async def main() -> None:
        async def receive() -> Any:
            if messages:
                return messages.pop()
            if not late:
                return await asyncio.get_running_loop().create_future()
            await asyncio.to_thread(closing.wait, 20)
            asyncio.get_running_loop().call_later(0.05, gone.set)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            pass

        scope = {"type": "http", "method": "GET", "path": "/page/", "headers": []}
        await ASGIHandler()(scope, receive, send)

    try:
        asyncio.run(main())
    finally:
        request_finished.disconnect(receiver)
    assert finished == ["finished"]


# 15


class Closing(HttpResponse):
    def close(self) -> None:
        super().close()


class Late(HttpResponse):
    @property
    def content(self) -> bytes:
        return b"late"

    @content.setter
    def content(self, value: Any) -> None:
        self._container = [b""]


def with_closer() -> HttpResponse:
    response = HttpResponse()
    response._resource_closers.append(lambda: None)  # type: ignore[attr-defined]
    return response


def with_own_close() -> HttpResponse:
    response: Any = HttpResponse()
    response.close = lambda: HttpResponse.close(response)
    return response  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("make", "before"),
    [
        (HttpResponse, True),
        (Closing, False),
        (Late, False),
        (with_closer, False),
        (with_own_close, False),
    ],
)
def test_response_is_closed_before_it_is_sent_only_if_nobody_can_tell(
    make: Callable[[], Any], before: bool, project: Any
) -> None:
    made: list[Any] = []

    def view(request: Any) -> Any:
        made.append(make())
        return made[-1]

    serve(project, view)
    client = Client(ASGIHandler())
    closed: list[bool] = []
    client.on_send = lambda message: closed.append(made[0].closed)
    assert client.get() == 200
    assert (closed[0], made[0].closed) == (before, True)
    assert len(client.hops) == (1 if before else 2)


def test_receiver_of_request_finished_sees_the_response_sent(project: Any) -> None:
    order: list[str] = []

    def receiver(**_: Any) -> None:
        order.append("finished")

    serve(project, lambda request: HttpResponse())
    client = Client(ASGIHandler())
    client.on_send = lambda message: order.append(message["type"])
    request_finished.connect(receiver)
    try:
        client.get()
    finally:
        request_finished.disconnect(receiver)
    assert order == ["http.response.start", "http.response.body", "finished"]


# 16


def test_sender_is_djangos_class(project: Any) -> None:
    senders: list[Any] = []

    def receiver(sender: Any, **_: Any) -> None:
        senders.append(sender)

    class Own(ASGIHandler):
        pass

    serve(project, lambda request: HttpResponse())
    for signal in (request_started, request_finished):
        signal.connect(receiver, sender=asgi.ASGIHandler)
        signal.connect(receiver, sender=Own)
    try:
        Client(ASGIHandler()).get()
        assert senders == [asgi.ASGIHandler] * 2
        Client(Own()).get()
        assert senders[2:] == [Own] * 2
    finally:
        for signal in (request_started, request_finished):
            signal.disconnect(receiver, sender=asgi.ASGIHandler)
            signal.disconnect(receiver, sender=Own)
    assert isinstance(ASGIHandler(), ASGIHandler)
    assert isinstance(ASGIHandler(), asgi.ASGIHandler)


# 17


def test_asynchronous_receivers_of_request_started() -> None:
    same(Case(receivers=("started async", "started set", "finished")))


def test_exception_of_a_receiver_of_request_started_is_not_converted() -> None:
    events = same(
        Case(receivers=("started raise", "finished"), layers=(mixin(request="pass"),))
    )
    assert who(events, "raised") == ["application"]
    assert who(events, "send") == []


# 18


@BOTH
def test_refused_request_closes_its_body_first(
    handler: type, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[Any] = []
    original = asgi.ASGIHandler.read_body

    async def read_body(self: Any, receive: Any) -> Any:
        bodies.append(await original(self, receive))
        return bodies[-1]

    monkeypatch.setattr(asgi.ASGIHandler, "read_body", read_body)
    serve(project, lambda request: HttpResponse())
    client = Client(handler())
    closed: list[bool] = []
    client.on_send = lambda message: closed.append(bodies[0].closed)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        assert client.get(query=b"\xff") == 400
        gc.collect()
    assert closed == [True, True]


# 19


def test_stop_iteration_of_a_hook_or_view_is_an_error_like_any_other(
    project: Any,
) -> None:
    """A deliberate difference: with Django such a request hangs."""

    def view(request: Any) -> None:
        raise StopIteration

    serve(project, view)
    assert Client(ASGIHandler()).get() == 500
    middleware = type(
        "M", (MiddlewareMixin,), {"process_request": lambda *_: next(iter(()))}
    )
    serve(project, lambda request: HttpResponse(), middleware)
    assert Client(ASGIHandler()).get() == 500


def test_context_variable_can_be_reset_in_another_hook(project: Any) -> None:
    """A deliberate difference: with Django each hook has another context."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    class Middleware(MiddlewareMixin):
        def process_request(self, request: Any) -> None:
            request.token = variable.set("set")

        def process_response(self, request: Any, response: Any) -> Any:
            variable.reset(request.token)
            return response

    serve(project, lambda request: HttpResponse(), Middleware)
    assert Client(ASGIHandler()).get() == 200
    assert Client(asgi.ASGIHandler()).get() == 500


# 20


@pytest.mark.parametrize(
    ("owner", "name", "hops"),
    [
        (asgi.ASGIHandler, "handle", 3),
        (asgi.ASGIHandler, "run_get_response", 3),
        (base.BaseHandler, "get_response_async", 3),
        (base.BaseHandler, "_get_response_async", 3),
        (asgi.ASGIHandler, "create_request", 1),
        (base.BaseHandler, "make_view_atomic", 1),
        (base.BaseHandler, "resolve_request", 1),
        (asgi.ASGIHandler, "send_response", 1),
    ],
)
def test_what_others_replace_is_called(
    owner: type, name: str, hops: int, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the class, as agents do; and by a subclass."""
    called: list[str] = []
    original = getattr(owner, name)

    def sync(self: Any, *args: Any, **kwargs: Any) -> Any:
        called.append(name)
        return original(self, *args, **kwargs)

    async def asynchronous(self: Any, *args: Any, **kwargs: Any) -> Any:
        called.append(name)
        return await original(self, *args, **kwargs)

    replaced = asynchronous if iscoroutinefunction(original) else sync
    serve(project, lambda request: HttpResponse())
    subclass = type("Own", (ASGIHandler,), {name: replaced})
    client = Client(subclass())
    assert client.get() == 200
    assert called == [name]
    if name != "handle":  # its own would have to call ours
        assert len(client.hops) == hops
    monkeypatch.setattr(owner, name, replaced)
    client = Client(ASGIHandler())
    assert client.get() == 200
    assert called == [name, name]
    assert len(client.hops) == hops


def test_wrapped_before_it_was_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent may have been first: the original is found inside its wrapper."""
    original = base.BaseHandler.get_response_async

    async def wrapper(self: Any, request: Any) -> Any:
        return await original(self, request)

    monkeypatch.setattr(base.BaseHandler, "get_response_async", wrapper)
    find = exchange._original
    assert find(base.BaseHandler, "get_response_async") is original
    monkeypatch.setattr(base.BaseHandler, "get_response_async", len)
    assert find(base.BaseHandler, "get_response_async") is None


# 21


def test_exception_is_the_one_being_handled(project: Any) -> None:
    """In process_exception, and in the error handlers."""
    handled: list[Any] = []

    class Middleware(MiddlewareMixin):
        def process_exception(self, request: Any, exception: Exception) -> None:
            handled.append((sys.exc_info()[1], exception))

    error = ValueError()

    def view(request: Any) -> None:
        raise error

    async def async_view(request: Any) -> None:
        raise error

    def handler500(request: Any) -> HttpResponse:
        handled.append((sys.exc_info()[1], error))
        return HttpResponse(status=500)

    project.handler500 = handler500
    for each in (view, async_view):
        handled.clear()
        serve(project, each, Middleware)
        assert Client(ASGIHandler()).get() == 500
        assert handled == [(error, error), (error, error)]


def test_page_for_developers_shows_no_frame_of_ours(project: Any) -> None:
    def view(request: Any) -> None:
        raise ValueError

    middleware = type("M", (MiddlewareMixin,), {"process_request": lambda *_: None})
    serve(project, view, middleware)
    with override_settings(DEBUG=True):
        client = Client(ASGIHandler())
        assert client.get() == 500
    page = b"".join(message.get("body", b"") for message in client.sent).decode()
    assert "test_handler_traps.py" in page
    assert f"{PACKAGE}/handler" not in page


# The rest


def test_hop_ends_with_a_word_to_the_pool(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, in the thread, after the last step of the request."""
    released: list[int] = []
    pool: Any = types.ModuleType("djasgi.threads")
    pool.release = lambda: released.append(threading.get_ident())
    monkeypatch.setitem(sys.modules, "djasgi.threads", pool)
    seen: list[int] = []

    def view(request: Any) -> HttpResponse:
        assert released == []
        seen.append(threading.get_ident())
        return HttpResponse()

    serve(project, view)
    assert Client(ASGIHandler()).get() == 200
    assert released == seen

    async def async_view(request: Any) -> Any:
        return Closing()

    released.clear()
    serve(project, async_view)
    assert Client(ASGIHandler()).get() == 200
    assert len(released) == 1


def test_application_for_another_launcher(project: Any) -> None:
    serve(project, lambda request: HttpResponse())
    application = get_asgi_application()
    assert type(application) is ASGIHandler
    client = Client(application)
    assert client.get() == 200
    assert len(client.hops) == 1


def test_synchronous_chain_is_djangos(project: Any) -> None:
    """`load_middleware` of a handler that is not asynchronous."""
    serve(project, lambda request: HttpResponse())
    handler = ASGIHandler()
    handler.load_middleware()
    assert not iscoroutinefunction(handler._middleware_chain)


# What the differential test has found besides


def test_hook_that_goes_to_a_loop_of_its_own() -> None:
    """asgiref then remembers that loop and that task, until the next hop."""
    function = Layer("function", (("before", "pass"), ("after", "pass")))
    stack = (function, mixin(request="nested"), Layer("both"))
    events = same(Case(layers=stack, disconnect="view"))
    assert ("escaped", "m2", "loop") in [event[:3] for event in events]
    same(Case(layers=stack[1:], view="back", disconnect="view"))


def test_loop_that_is_closed_is_forgotten(project: Any) -> None:
    loops: list[Any] = []

    async def look() -> None:
        loops.append(asyncio.get_running_loop())
        await sync_to_async(len)("")

    class Middleware(MiddlewareMixin):
        def process_request(self, request: Any) -> None:
            async_to_sync(look, force_new_loop=True)()

    def view(request: Any) -> HttpResponse:
        async_to_sync(look)()
        return HttpResponse()

    async def main(application: Any) -> asyncio.AbstractEventLoop:
        await Client(application)._request("/page/", b"", b"")
        return asyncio.get_running_loop()

    serve(project, view, Middleware)
    for application in (asgi.ASGIHandler(), ASGIHandler()):
        loops.clear()
        running = asyncio.run(main(application))
        assert [loop is running for loop in loops] == [False, True]


def test_response_that_cannot_be_rendered_is_an_exception_of_rendering() -> None:
    layer = mixin(template_response="respond", exception="respond")
    events = same(Case(layers=(layer,), view="template"))
    assert who(events, "process_exception") == ["m0"]


def test_refusal_is_sent_though_the_client_has_gone() -> None:
    events = same(Case(query=b"\xff", disconnect="send"))
    assert who(events, "send") == ["start", "body"]


def test_error_is_not_logged_on_the_loop() -> None:
    events = same(Case(layers=(Layer("both"),), view="missing"))
    assert where(events, "log") == ["thread"]


def test_nothing_of_a_request_waits_for_the_garbage_collector(project: Any) -> None:
    serve(project, lambda request: HttpResponse())
    # As below a server: asyncio's own groups of tasks leave something on Python 3.13.
    application: Any = ASGIHandler()
    gc.collect()
    gc.disable()
    try:
        assert Client(Requests(application)).get() == 200
        left = [each for each in gc.get_objects() if type(each) is exchange.Exchange]
    finally:
        gc.enable()
    assert left == []


@pytest.mark.parametrize("served", [True, False])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_task_that_listens_is_only_made_where_it_has_to_be(
    served: bool, kind: str, project: Any
) -> None:
    async def async_view(request: Any) -> HttpResponse:
        return HttpResponse()

    serve(project, async_view if kind == "async" else lambda request: HttpResponse())
    handler: Any = ASGIHandler()
    made: list[str] = []

    def factory(loop: Any, coroutine: Any, **more: Any) -> Any:
        made.append(coroutine.__name__)
        return asyncio.Task(coroutine, loop=loop, **more)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        await (Requests(handler) if served else handler)(scope, receive, send)

    assert Client(application).get() == 200
    assert ("_listen_for_disconnect" in made) is not served


# Before 6.1 Django leaves the body to the garbage collector then.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_application_that_is_given_up(kind: str, project: Any) -> None:
    """Its coroutine is closed while the view is running: no noise, one answer at most."""
    running, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def view(request: Any) -> HttpResponse:
        running.set()
        assert go_on.wait(20)
        ended.set()
        return HttpResponse()

    async def async_view(request: Any) -> None:
        running.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    messages = [{"type": "http.request"}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        return await asyncio.get_running_loop().create_future()

    async def main(application: Any) -> None:
        scope = {"type": "http", "method": "GET", "path": "/page/", "headers": []}
        task = asyncio.create_task(application(scope, receive, send))
        await asyncio.to_thread(running.wait, 20)
        task.cancel()
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await task

    serve(project, view if kind == "sync" else async_view)
    asyncio.run(main(ASGIHandler()))
    assert ended.wait(20)
    # Before 6.1 Django leaves what it has begun to itself, which may answer yet.
    assert [message["type"] for message in sent].count("http.response.start") <= 1
    gc.collect()
