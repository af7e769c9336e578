"""The links of the chain: middleware and view, each a coroutine function for a strand."""

from __future__ import annotations

from asyncio import iscoroutine
from collections.abc import Awaitable, Callable
from functools import wraps
from types import FunctionType
from typing import Any

from asgiref.sync import AsyncToSync, SyncToAsync, iscoroutinefunction, sync_to_async
from django.core.handlers import exception
from django.core.handlers.base import BaseHandler
from django.utils.deprecation import MiddlewareMixin

from djasgi.handler.strand import Strand, has_loop, here

Node = Callable[[Strand, Any], Awaitable[Any]]
"""A middleware and all below it: the response to a request, for a strand."""

GetResponse = Callable[[Any], Any]

_CORE = vars(BaseHandler)["_get_response_async"]


async def converted(strand: Strand, request: Any, error: Exception) -> Any:
    """The response for an exception, as Django's between any two middleware.

    In the request's thread, where WSGI has it too. Django on ASGI takes another one,
    whose database connections nobody closes.
    """
    __traceback_hide__ = True
    return await strand.call(exception.response_for_exception, request, error)


class Fused:
    """A `MiddlewareMixin`: its hooks are called where the strand is, in the thread."""

    def __init__(self, middleware: Any, inner: Node) -> None:
        self.middleware = middleware
        self.inner = inner

    async def __call__(self, strand: Strand, request: Any) -> Any:
        __traceback_hide__ = True
        try:
            return await self.respond(strand, request)
        except Exception as error:  # noqa: BLE001  # whatever the project raises
            return await converted(strand, request, error)

    async def respond(self, strand: Strand, request: Any) -> Any:
        """The response, or what a hook raised."""
        __traceback_hide__ = True
        middleware, response = self.middleware, None
        # Looked up at each request, as MiddlewareMixin does.
        if hasattr(middleware, "process_request"):
            if not strand.in_thread:
                await strand.thread()
            response = strand.call_here(middleware.process_request, request)
        response = response or await self.inner(strand, request)
        if hasattr(middleware, "process_response"):
            if not strand.in_thread:
                await strand.thread()
            response = strand.call_here(middleware.process_response, request, response)
        return response


class View:
    """The innermost: URL, view, and what middleware does around the view."""

    def __init__(self, handler: BaseHandler) -> None:
        self.handler: Any = handler
        self.process_view: list[Any] = []
        self.process_template_response: list[Any] = []
        self.django: GetResponse | None = None

    def adopt_hooks(self) -> None:
        """Take the hooks that Django has loaded.

        If one of them is asynchronous, or somebody has replaced what is inside the
        middleware, that is left to it.
        """
        hooks = [
            *self.handler._view_middleware,  # noqa: SLF001
            *self.handler._template_response_middleware,  # noqa: SLF001
        ]
        core = getattr(self.handler._get_response_async, "__func__", None)  # noqa: SLF001
        if core is not _CORE or not all(type(hook) is SyncToAsync for hook in hooks):
            self.django = self.handler._get_response_async  # noqa: SLF001
            return
        self.process_view = [
            hook.func
            for hook in self.handler._view_middleware  # noqa: SLF001
        ]
        self.process_template_response = list(
            self.handler._template_response_middleware  # noqa: SLF001
        )

    async def __call__(self, strand: Strand, request: Any) -> Any:
        __traceback_hide__ = True
        try:
            return await self.respond(strand, request)
        except Exception as error:  # noqa: BLE001  # whatever the project raises
            return await converted(strand, request, error)

    async def respond(self, strand: Strand, request: Any) -> Any:
        """The response, or what the view and the hooks around it raised."""
        __traceback_hide__ = True
        handler = self.handler
        if self.django is not None:
            await strand.loop()
            return await self.django(request)
        callback, args, kwargs = handler.resolve_request(request)
        response: Any = None
        for process_view in self.process_view:
            if not strand.in_thread:
                await strand.thread()
            response = strand.call_here(process_view, request, callback, args, kwargs)
            if response:
                break
        if response is None:
            view = handler.make_view_atomic(callback)
            refuse_async_call(view)
            call = called(strand, view, request, *args, **kwargs)
            response = await self._rescued(strand, request, call)
        handler.check_response(response, callback)
        if hasattr(response, "render") and callable(response.render):
            for hook in self.process_template_response:
                response = await strand.call(hook.func, request, response)
                name = f"{hook.__self__.__class__.__name__}.process_template_response"
                handler.check_response(response, hook, name=name)
            response = await self._rescued(strand, request, rendered(strand, response))
        if iscoroutine(response):
            raise RuntimeError("Response is still a coroutine.")
        return response

    async def _rescued(self, strand: Strand, request: Any, call: Awaitable[Any]) -> Any:
        """What `call` returns, else what process_exception makes of its exception."""
        __traceback_hide__ = True
        try:
            return await call
        except Exception as error:
            response = await strand.call(
                self.handler.process_exception_by_middleware, error, request
            )
            if response is None:
                raise
            return response


async def called(strand: Strand, function: Any, *args: Any, **kwargs: Any) -> Any:
    """What `function` returns, called on the loop or in the thread as it has to be."""
    __traceback_hide__ = True
    if iscoroutinefunction(function):
        await strand.loop()
        return await function(*args, **kwargs)
    return await strand.call(function, *args, **kwargs)


async def rendered(strand: Strand, response: Any) -> Any:
    """What `render` returns; middleware may have put a response there that has none."""
    __traceback_hide__ = True
    return await called(strand, response.render)


def refuse_async_call(view: Any) -> None:
    """Raise what `sync_to_async` raises for an object whose `__call__` is asynchronous."""
    if type(view) is FunctionType or iscoroutinefunction(view):
        return
    if iscoroutinefunction(getattr(view, "__call__", view)):  # noqa: B004  # as asgiref
        sync_to_async(view)


def awaited_on_loop(handler: GetResponse) -> Node:
    """Asynchronous inside, or not known: Django's own handler, awaited on the loop."""

    async def node(strand: Strand, request: Any) -> Any:
        __traceback_hide__ = True
        await strand.loop()
        return await handler(request)

    return node


def called_in_thread(handler: GetResponse) -> Node:
    """Synchronous middleware: Django's own handler, called in the thread."""

    async def node(strand: Strand, request: Any) -> Any:
        __traceback_hide__ = True
        return await strand.call(handler, request)

    return node


def entrance(node: Node, original: Any) -> GetResponse:
    """`node` as a `get_response` that looks like Django's `original`."""

    @wraps(original)
    async def get_response(request: Any) -> Any:
        __traceback_hide__ = True
        return await Strand().run(node, request)

    if hasattr(original, "__wrapped__"):
        get_response.__wrapped__ = original.__wrapped__
    return get_response


class SyncEntrance(AsyncToSync[[Any], Any]):
    """`node` as the `get_response` of synchronous middleware.

    In the thread of a strand it goes straight on there.
    """

    def __init__(self, node: Node, original: Any) -> None:
        super().__init__(entrance(node, original))
        self.node = node

    def __call__(self, request: Any) -> Any:
        __traceback_hide__ = True
        if here.strand is None or has_loop():
            return super().__call__(request)
        return Strand().run_in_thread(self.node, request)


HOOKS = ("process_request", "process_response")


def is_fusable(middleware: Any, given: Any) -> bool:
    """Whether a middleware is nothing but synchronous hooks around `get_response`."""
    return (
        isinstance(middleware, MiddlewareMixin)
        and type(middleware).__call__ is MiddlewareMixin.__call__
        and type(middleware).__acall__ is MiddlewareMixin.__acall__
        and bool(middleware.async_mode)
        and middleware.get_response is given
        and not any(_is_asynchronous(getattr(middleware, name, None)) for name in HOOKS)
    )


def _is_asynchronous(hook: Any) -> bool:
    call = getattr(hook, "__call__", None)  # noqa: B004  # as asgiref asks
    return iscoroutinefunction(hook) or iscoroutinefunction(call)
