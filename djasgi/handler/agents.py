"""What monitoring agents do to Django, where it would cost hops if it was not known.

sentry-sdk wraps each middleware in one of its own, which opens a span around it, and
wraps `get_response_async`. Both are run as they are: only what they wrap is ours.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from djasgi.handler.nodes import Fused, Node, converted, is_fusable
from djasgi.handler.strand import Strand

SENTRY = "sentry_sdk.integrations.django.asgi"


class _HandedOver(threading.local):
    """The strand on its way through an agent's wrapper, which knows nothing of it."""

    strand: Strand | None = None


_handed_over = _HandedOver()


class Traced(Fused):
    """A `MiddlewareMixin` inside sentry-sdk's wrapper."""

    def __init__(self, wrapper: Any, inner: Node) -> None:
        super().__init__(wrapper._inner, inner)  # noqa: SLF001
        self.wrapper = wrapper
        original: Callable[[Any], Awaitable[Any]] = self.middleware.__acall__

        @wraps(original)
        async def acall(request: Any) -> Any:
            __traceback_hide__ = True
            strand, _handed_over.strand = _handed_over.strand, None
            if strand is None:
                return await original(request)
            return await self.respond(strand, request)

        wrapper._acall_method = acall  # noqa: SLF001  # where it keeps what it wraps

    async def __call__(self, strand: Strand, request: Any) -> Any:
        """The response; what is raised is converted."""
        __traceback_hide__ = True
        try:
            # Nothing is awaited between here and `acall`.
            _handed_over.strand = strand
            return await self.wrapper(request)
        except Exception as error:  # noqa: BLE001  # whatever the project raises
            return await converted(strand, request, error)


def is_traced(middleware: Any, given: Any) -> bool:
    """Whether this is sentry-sdk's wrapper around a middleware of hooks alone."""
    return (
        any(
            (base.__module__, base.__name__) == (SENTRY, "SentryASGIMixin")
            for base in type(middleware).__mro__
        )
        and "_acall_method" in vars(middleware)
        and is_fusable(vars(middleware).get("_inner"), given)
    )


def only_looks(get_response_async: Any) -> bool:
    """Whether a replaced `get_response_async` is known to await but the original."""
    return getattr(get_response_async, "__module__", None) == SENTRY
