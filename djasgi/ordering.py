"""The thread hops that each request pays, as Django itself decides them.

A middleware that cannot be asynchronous, a synchronous hook, a synchronous view: each
change between the event loop and a thread is a hop, and where it falls depends on the
order of MIDDLEWARE (https://docs.djangoproject.com/en/stable/topics/async/#performance).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALWAYS = 2
"""The signal request_started, and closing the response (ASGIHandler.handle)."""


@dataclass(frozen=True, slots=True)
class Middleware:
    """What decides how Django runs one middleware."""

    path: str
    can_sync: bool
    can_async: bool
    hooks: int = 0  # synchronous hooks that MiddlewareMixin runs in a thread each
    view_hook: bool = False  # a synchronous process_view


def hops(stack: Sequence[Middleware], *, view_is_async: bool) -> int:
    """The hops of one request through `stack`, outermost first, on ASGI."""
    count = ALWAYS + (0 if view_is_async else 1)
    inner_is_async = True
    for middleware in reversed(stack):
        is_async = middleware.can_async and (inner_is_async or not middleware.can_sync)
        count += is_async != inner_is_async
        count += middleware.hooks if is_async else 0
        count += middleware.view_hook
        inner_is_async = is_async
    return count + (0 if inner_is_async else 1)


def loaded_stack() -> tuple[Middleware, ...]:
    """The middleware of the settings, as Django would load it for ASGI.

    Makes an instance of each, as every handler does, and leaves out those that say they
    are not used. Raises what they raise.
    """
    from asgiref.sync import iscoroutinefunction
    from django.conf import settings
    from django.core.exceptions import MiddlewareNotUsed
    from django.utils.deprecation import MiddlewareMixin
    from django.utils.module_loading import import_string

    async def respond(request: object) -> None:
        """Stand in for the next handler, which is never called."""

    stack = []
    for path in settings.MIDDLEWARE:
        factory = import_string(path)
        can_async = getattr(factory, "async_capable", False)
        try:
            instance = factory(respond if can_async else lambda request: None)
        except MiddlewareNotUsed:
            continue
        kind = type(instance)
        mixed = isinstance(instance, MiddlewareMixin) and (
            kind.__call__ is MiddlewareMixin.__call__
            and kind.__acall__ is MiddlewareMixin.__acall__
        )
        names = ("process_request", "process_response") if mixed else ()
        view = getattr(instance, "process_view", None)
        stack.append(
            Middleware(
                path,
                can_sync=getattr(factory, "sync_capable", True),
                can_async=can_async,
                hooks=sum(hasattr(instance, name) for name in names),
                view_hook=view is not None and not iscoroutinefunction(view),
            )
        )
    return tuple(stack)


_DJANGO = "django.middleware."
_CONTRIB = "django.contrib."
SECURITY = f"{_DJANGO}security.SecurityMiddleware"
SESSIONS = f"{_CONTRIB}sessions.middleware.SessionMiddleware"
AUTHENTICATION = f"{_CONTRIB}auth.middleware.AuthenticationMiddleware"

BEFORE: tuple[tuple[str, str], ...] = (
    (f"{_DJANGO}cache.UpdateCacheMiddleware", "*"),
    (SESSIONS, AUTHENTICATION),
    (SESSIONS, f"{_DJANGO}locale.LocaleMiddleware"),
    (SESSIONS, f"{_CONTRIB}messages.middleware.MessageMiddleware"),
    (SESSIONS, f"{_DJANGO}csrf.CsrfViewMiddleware"),
    (
        f"{_DJANGO}csrf.CsrfViewMiddleware",
        f"{_CONTRIB}auth.middleware.RemoteUserMiddleware",
    ),
    (AUTHENTICATION, f"{_CONTRIB}auth.middleware.LoginRequiredMiddleware"),
    (AUTHENTICATION, f"{_CONTRIB}auth.middleware.RemoteUserMiddleware"),
    (f"{_DJANGO}gzip.GZipMiddleware", "*"),
    ("*", f"{_DJANGO}cache.FetchFromCacheMiddleware"),
    ("*", f"{_CONTRIB}flatpages.middleware.FlatpageFallbackMiddleware"),
    ("*", f"{_CONTRIB}redirects.middleware.RedirectFallbackMiddleware"),
    ("whitenoise.middleware.WhiteNoiseMiddleware", "*"),
    ("corsheaders.middleware.CorsMiddleware", "*"),
    ("debug_toolbar.middleware.DebugToolbarMiddleware", "*"),
    ("django_prometheus.middleware.PrometheusBeforeMiddleware", "*"),
    ("*", "django_prometheus.middleware.PrometheusAfterMiddleware"),
    ("*", "axes.middleware.AxesMiddleware"),
)
"""What has to stay before what, by the documentation of each; `*` is everything else.

https://docs.djangoproject.com/en/stable/ref/middleware/#middleware-ordering
"""


@dataclass(frozen=True, slots=True)
class Reordering:
    """A cheaper order: one middleware moved inwards."""

    moved: Middleware
    after: Middleware
    stack: tuple[Middleware, ...]
    hops: int


def cheapest(stack: Sequence[Middleware], *, view_is_async: bool) -> Reordering | None:
    """The best order that moves one synchronous middleware inwards.

    None if no move keeps what `BEFORE` says and saves a hop. A middleware that has a
    documented place at the outside is not moved.
    """
    best: Reordering | None = None
    least = hops(stack, view_is_async=view_is_async)
    for index, middleware in enumerate(stack):
        if middleware.can_async or (middleware.path, "*") in BEFORE:
            continue
        for end in range(index + 1, len(stack)):
            passed = stack[index + 1 : end + 1]
            if any(_must_precede(middleware.path, other.path) for other in passed):
                break
            moved = (*stack[:index], *passed, middleware, *stack[end + 1 :])
            count = hops(moved, view_is_async=view_is_async)
            if count < least:
                least = count
                best = Reordering(middleware, passed[-1], moved, count)
    return best


def _must_precede(first: str, second: str) -> bool:
    return (first, second) in BEFORE or ("*", second) in BEFORE
