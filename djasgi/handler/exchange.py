"""Request and response in one hop: Django's own `handle`, with its hops put together.

`ASGIHandler.handle` reads the body, sends request_started (a hop), makes the request,
gets the response (the chain), sends it while it listens for a disconnect, and closes the
response (a hop), which sends request_finished. An exchange runs that very function, on
whichever Django, with three things put off until the strand is in the thread anyway:
request_started, making the request, and closing what nobody can see being closed.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from itertools import islice
from types import FunctionType
from typing import Any

import django
from asgiref.sync import sync_to_async
from django.core import signals
from django.core.cache import close_caches
from django.core.exceptions import RequestAborted
from django.core.handlers import asgi, base
from django.db import close_old_connections
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.template.response import SimpleTemplateResponse

from djasgi.disconnect import Receiver, receiver
from djasgi.handler import agents
from djasgi.handler.listener import Asyncio, Listener, is_known
from djasgi.handler.nodes import Node
from djasgi.handler.strand import Strand, has_loop

APART = django.VERSION < (6, 1)
"""Whether request_started, the request, and close run in contexts of their own.

Up to Django 6.0 each is a task or goes before and after one, so that none sees the
context variables that another has set; since 6.1 there is a single task.
"""

UNOBSERVABLE = {base.reset_urlconf, close_old_connections, close_caches}
"""Django's own receivers of request_finished: the response may be on its way or not."""

MOST_WRAPPERS = 64
"""How many functions are looked at to find what agents have wrapped."""

CONTENT = {HttpResponse.content, SimpleTemplateResponse.content}


def _original(owner: type, name: str) -> Any:
    """Django's own function, also if an agent has wrapped it already; None if not found.

    A wrapper keeps what it wraps among the variables it closes over.
    """
    module = vars(sys.modules[owner.__module__])
    candidates = [vars(owner).get(name)]
    for function in islice(candidates, MOST_WRAPPERS):
        if isinstance(function, FunctionType):
            if function.__globals__ is module and function.__name__ == name:
                return function
            for cell in function.__closure__ or ():
                with suppress(ValueError):  # not set yet
                    candidates.append(cell.cell_contents)
    return None


_HANDLE = _original(asgi.ASGIHandler, "handle")
_LISTEN = _original(asgi.ASGIHandler, "listen_for_disconnect")
_RUN_GET_RESPONSE = _original(asgi.ASGIHandler, "run_get_response")
_GET_RESPONSE = _original(base.BaseHandler, "get_response_async")

LISTENERS_ARE_KNOWN = _HANDLE is not None and is_known(_HANDLE)
ASYNCIO = Asyncio()


def is_possible(handler: Any) -> bool:
    """Whether nobody has changed what an exchange takes the place of.

    Monitoring agents and subclasses do: then Django's `handle` runs as it is.
    """
    run = getattr(handler.run_get_response, "__func__", None)
    get = getattr(handler.get_response_async, "__func__", None)
    return (
        None not in {_HANDLE, _RUN_GET_RESPONSE, _GET_RESPONSE}
        and asgi.ASGIHandler.handle is _HANDLE
        and run is _RUN_GET_RESPONSE
        and (get is _GET_RESPONSE or agents.only_looks(get))
        # An asynchronous receiver runs on the loop, beside the others.
        and not any(is_async for *_, is_async in signals.request_started.receivers)
    )


class Exchange:
    """What `handle` sees as its handler, for one request."""

    def __init__(self, handler: Any, chain: Node) -> None:
        self.handler = handler
        self.chain = chain
        self.scope: Any = None
        self.body: Any = None
        self.strand = Strand()
        self.watched: Receiver | None = None
        self.refused = False
        self.observed = False
        self.finished: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.handler, name)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """The sender of the signals."""
        return self.handler.__class__

    @property
    def request_started(self) -> _Signal:
        """The signal, for `handle`: it is sent later."""
        return _Signal(self._put_off)

    @property
    def request_finished(self) -> _Signal:
        """The signal, for `handle`, which sends it for a request that was cancelled."""
        return _Signal(self._finish)

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        """Django's `handle`."""
        names = {
            **_HANDLE.__globals__,
            "signals": self,
            "sync_to_async": self._closing,
        }
        listen = getattr(self.handler.listen_for_disconnect, "__func__", None)
        if LISTENERS_ARE_KNOWN and listen is _LISTEN:
            self.watched = receiver(receive)
            if self.watched is not None:
                names["asyncio"] = ASYNCIO
        await FunctionType(_HANDLE.__code__, names)(self, scope, receive, send)

    async def _put_off(self, **named: Any) -> None:
        """In place of request_started: `_respond` sends it."""

    def create_request(self, scope: Any, body_file: Any) -> tuple[Exchange, None]:
        """Remember of what: `_respond` makes the request."""
        self.scope, self.body = scope, body_file
        return self, None

    def listen_for_disconnect(self, receive: Any) -> Any:
        """What `handle` makes a task of, or what takes its place."""
        if self.watched is None:
            return self._listen_for_disconnect(receive)
        return Listener(self.watched, self)

    async def _listen_for_disconnect(self, receive: Any) -> None:
        """Raise RequestAborted when the client is gone, unless the request is refused.

        Django does not listen then.
        """
        try:
            await self.handler.listen_for_disconnect(receive)
        except RequestAborted:
            if not self.refused:
                # Of a request that was cancelled nobody asks for it.
                if (task := asyncio.current_task()) is not None:
                    task.add_done_callback(_retrieve)
                raise
            await asyncio.get_running_loop().create_future()

    async def run_get_response(self, request: Exchange) -> Any:
        """The response, from one hop if nothing asynchronous is on the way."""
        return await self.strand.run(self._respond)

    async def _respond(self, strand: Strand) -> Any:
        __traceback_hide__ = True
        await strand.thread()
        before = contextvars.copy_context()
        start = before.copy().run if APART else _call
        start(signals.request_started.send, sender=self.__class__, scope=self.scope)
        request, refusal = self.handler.create_request(self.scope, self.body)
        if request is None:
            self.refused = True
            self.body.close()
            return refusal
        if strand.cancelled:
            # With Django, the next step has just begun by now, or is taken back.
            raise asyncio.CancelledError
        response = await _RUN_GET_RESPONSE(self, request)
        if strand.in_thread and self._closes_unseen(request, response):
            if self.finished.setdefault("by", "close") == "close":
                (before.run if APART else _call)(response.close)
            release()
        return response

    async def get_response_async(self, request: Any) -> Any:
        """Django's, which logs a status of 400 and more without leaving the thread."""
        get_response = self.handler.get_response_async.__func__
        if get_response is _GET_RESPONSE:
            return await _get_response(self, request)
        self.observed = True
        return await get_response(self, request)

    async def _middleware_chain(self, request: Any) -> Any:
        response = await self.chain(self.strand, request)
        if self.observed and response.status_code >= HTTPStatus.BAD_REQUEST:
            # An agent calls Django's own, which logs from there.
            await self.strand.loop()
        return response

    def _closes_unseen(self, request: Any, response: Any) -> bool:
        """Whether nobody can tell that the response is closed before it is sent."""
        return (
            isinstance(response, HttpResponse)
            and type(response).close is HttpResponseBase.close
            and type(response).content in CONTENT
            and type(request).close is asgi.ASGIRequest.close
            and "close" not in vars(response)
            and "close" not in vars(request)
            and response._resource_closers == [request.close]  # type: ignore[attr-defined]  # noqa: SLF001
            and _finishes_unseen(self.__class__)
        )

    def _closing(self, close: Callable[[], None]) -> Callable[[], Awaitable[None]]:
        """In place of `sync_to_async(response.close)`."""

        async def nothing() -> None:
            pass

        def closed() -> None:
            try:
                close()
            finally:
                release()

        return nothing if self.finished else sync_to_async(closed)

    async def _finish(self, **named: Any) -> None:
        """In place of request_finished for a request that was cancelled."""
        if self.finished.setdefault("by", "cancel") == "cancel":
            await signals.request_finished.asend(**named)


_known: tuple[Any, list[Any], bool] = (None, [], False)
"""The last answer of `_finishes_unseen`, and to what question."""


def _finishes_unseen(sender: Any) -> bool:
    """Whether nobody of the project is told that a request of `sender` has finished."""
    global _known  # noqa: PLW0603  # one tuple: threads see all of an answer
    signal = signals.request_finished
    of, receivers, unseen = _known
    if of is not sender or receivers != signal.receivers:
        receivers = signal.receivers.copy()
        unseen = all(
            receiver in UNOBSERVABLE
            for live in signal._live_receivers(sender)  # noqa: SLF001
            for receiver in live
        )
        _known = (sender, receivers, unseen)
    return unseen


class _Signal:
    def __init__(self, asend: Callable[..., Awaitable[None]]) -> None:
        self.asend = asend


def _call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _here(function: Callable[..., Any], **how: Any) -> Callable[..., Awaitable[Any]]:
    """In place of `sync_to_async`: not away from the thread, if this is one."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        __traceback_hide__ = True
        if has_loop():
            return await sync_to_async(function, **how)(*args, **kwargs)
        return function(*args, **kwargs)

    return call


_get_response: Any = _GET_RESPONSE and FunctionType(
    _GET_RESPONSE.__code__, {**_GET_RESPONSE.__globals__, "sync_to_async": _here}
)


def release() -> None:
    """The last hop of the request is over: its thread may go to another request."""
    if threads := sys.modules.get("djasgi.threads"):
        threads.release()


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
