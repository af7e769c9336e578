"""The layers around the application, in their one order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from djasgi.layers.access import AccessLog
from djasgi.layers.asgi import App, Middleware
from djasgi.layers.headers import ResponseHeaders
from djasgi.layers.health import Health
from djasgi.layers.lifespan import State
from djasgi.layers.limits import LimitConcurrency, MaxBodySize, RequestTimeout
from djasgi.layers.proxy import ProxyHeaders
from djasgi.layers.root_path import RootPath
from djasgi.options import Options


def wrap(app: App, middleware: Sequence[Middleware]) -> App:
    """`app` in the user's middleware, outermost first.

    The result is what has a lifespan: middleware sees that scope too.
    """
    for layer in reversed(middleware):
        app = layer(app)
    return app


def compose(
    app: App,
    options: Options,
    *,
    state: Mapping[str, Any] | None,
    is_ready: Callable[[], bool] = lambda: True,
) -> App:
    """`app`, from `wrap`, in the layers that `options` ask for; with none, itself.

    From the outside: health, logged only with the level debug; proxy headers and root
    path, which say what the client asked for and so come before the access log that
    reports it; the access log; response headers; the limits; the lifespan's `state`,
    None if the application has no lifespan.
    """
    if state is not None:
        app = State(app, state)
    if options.request_timeout:
        app = RequestTimeout(app, options.request_timeout)
    if options.max_body_size:
        app = MaxBodySize(app, options.max_body_size)
    if options.limit_concurrency:
        app = LimitConcurrency(app, options.limit_concurrency)
    if options.header:
        app = ResponseHeaders(app, options.header)
    trusted = options.forwarded_allow_ips if options.proxy_headers else None
    if options.access_log:
        app = AccessLog(app, trusted)
    if options.root_path:
        app = RootPath(app, options.root_path)
    if trusted is not None:
        app = ProxyHeaders(app, trusted)
    live, ready = options.health_path, options.ready_path
    if live is not None or ready is not None:
        logged = options.access_log and options.log_level == "debug"
        log = partial(AccessLog, trusted=trusted) if logged else None
        app = Health(app, live, ready, is_ready, log)
    return app
