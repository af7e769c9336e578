"""Django's middleware as one chain of coroutines, each run by a strand.

The instances are those that `BaseHandler.load_middleware` makes; here is only learnt
which of them are synchronous inside and can be called in one hop with their neighbours
(`MiddlewareMixin` and its hooks). Everything else is called through Django's own handler.
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import AsyncToSync, iscoroutinefunction
from django.core.handlers.base import BaseHandler

from djasgi.handler import agents
from djasgi.handler.nodes import (
    Fused,
    Node,
    SyncEntrance,
    View,
    awaited_on_loop,
    called_in_thread,
    entrance,
    is_fusable,
)


class Recorder:
    """Learns the chain from the calls by which Django builds it, innermost first."""

    def __init__(self, handler: BaseHandler) -> None:
        self.view = View(handler)
        self.core = handler._get_response_async  # type: ignore[attr-defined]  # noqa: SLF001
        self.node: Node | None = None
        self.handler: Any = None
        self.given: Any = None

    def layer(self, handler: Any, adapted: Any, *, handler_is_async: bool) -> Any:
        """What the next middleware gets as `get_response`, in place of `adapted`."""
        # The same handler again: the middleware in between was MiddlewareNotUsed.
        if handler is not self.handler:
            self.node = self._node(handler, handler_is_async=handler_is_async)
            self.handler = handler
        self.given = adapted
        if self.node is None:
            return adapted
        if iscoroutinefunction(adapted):
            self.given = entrance(self.node, adapted)
        elif type(adapted) is AsyncToSync:
            self.given = SyncEntrance(self.node, handler)
        return self.given

    def _node(self, handler: Any, *, handler_is_async: bool) -> Node | None:
        made = getattr(handler, "__wrapped__", None)
        if self.handler is None:
            return self.view if made == self.core else None
        if self.node is not None:
            if is_fusable(made, self.given):
                return Fused(made, self.node)
            if agents.is_traced(made, self.given):
                return agents.Traced(made, self.node)
        if not handler_is_async:
            return called_in_thread(handler)
        # A class that is asynchronous and not marked as such looks synchronous to
        # whatever is above it: that must stay as it is.
        return awaited_on_loop(handler) if iscoroutinefunction(handler) else None


class FusedMiddleware(BaseHandler):
    """Loads middleware as Django does, and chains it with fewer hops.

    A base class for asynchronous handlers, to be named before Django's.
    """

    _recorder: Recorder | None = None
    _chain: Node | None = None
    _middleware_chain: Any

    def load_middleware(self, is_async: bool = False) -> None:
        """Populate the chain, see `BaseHandler.load_middleware`."""
        if not is_async:
            super().load_middleware(is_async=is_async)
            return
        recorder = self._recorder = Recorder(self)
        try:
            super().load_middleware(is_async=is_async)
        finally:
            self._recorder = None
        recorder.view.adopt_hooks()
        django: Any = self._middleware_chain
        if recorder.node is not None and iscoroutinefunction(django):
            self._chain = recorder.node
            self._middleware_chain = entrance(recorder.node, django)

    def adapt_method_mode(
        self,
        is_async: bool,
        method: Any,
        method_is_async: bool | None = None,
        debug: bool = False,
        name: str | None = None,
    ) -> Any:
        """Adapt, see `BaseHandler.adapt_method_mode`: called once a middleware."""
        adapted = super().adapt_method_mode(
            is_async, method, method_is_async, debug=debug, name=name
        )
        # Hooks are adapted without a word about their mode.
        if self._recorder is None or method_is_async is None:
            return adapted
        given = self._recorder.layer(method, adapted, handler_is_async=method_is_async)
        return adapted if name is None else given
