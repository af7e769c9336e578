"""Channels: the layer between workers, and who may open a websocket."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from djasgi.checks.base import Finding, check
from djasgi.checks.context import Context

IN_MEMORY = "channels.layers.InMemoryChannelLayer"
MOST_LAYERS = 50


@check(
    "E011",
    "Messages are lost between workers",
    row=5,
    why="The in-memory channel layer lives in one process. With several workers each has "
    "a layer of its own: group_send reaches only the consumers that happen to live in the "
    "same worker, and nothing says so.",
    links=(
        "https://channels.readthedocs.io/en/stable/topics/channel_layers.html#in-memory-channel-layer",
    ),
    example='CHANNEL_LAYERS = {"default": {"BACKEND": '
    '"channels.layers.InMemoryChannelLayer"}}\n\n$ djasgi check --workers 4',
)
def in_memory_layer(context: Context) -> Iterator[Finding]:
    several = context.several_workers
    layers = getattr(context.settings, "CHANNEL_LAYERS", None) or {}
    if several is None:
        return
    for alias, layer in layers.items():
        if layer.get("BACKEND") == IN_MEMORY:
            yield Finding(
                f"{several[0]}, each with a layer {alias!r} of its own: a message "
                "reaches only the consumers that happen to live in the same one.",
                "Use channels_redis, or one worker.",
                context.setting("CHANNEL_LAYERS", IN_MEMORY),
            )


@check(
    "E012",
    "Any website can open a websocket as your user",
    row=6,
    why="Browsers send cookies with a websocket handshake from any site, and neither the "
    "same-origin policy nor Django's CSRF protection applies to it. With "
    "AuthMiddlewareStack and without a check of the Origin header, a foreign page talks to "
    "your consumers as the user who visits it (cross-site websocket hijacking).",
    links=("https://channels.readthedocs.io/en/stable/topics/security.html",),
    example='ProtocolTypeRouter({"websocket": AuthMiddlewareStack(URLRouter(…))})',
)
def websocket_origin(context: Context) -> Iterator[Finding]:
    chain = websocket_chain(context.application)
    names = [type(layer).__name__ for layer in chain]
    if not {"AuthMiddleware", "SessionMiddleware"} & set(names):
        return
    if any(_minds_origin(layer) for layer in chain):
        return
    if any(_minds_origin(consumer) for consumer in _consumers(chain[-1])):
        return
    yield Finding(
        "The websocket application knows the user by cookie, and nothing checks Origin.",
        "Wrap it: AllowedHostsOriginValidator(AuthMiddlewareStack(…)), from "
        "channels.security.websocket.",
        _router_place(context),
    )


def speaks_websocket(application: Any) -> bool:
    """Whether an application is, or contains, a Channels router for websockets."""
    return bool(websocket_chain(application))


def websocket_chain(application: Any) -> list[Any]:
    """The layers of the websocket branch, outermost first; none if there is none."""
    for layer in _layers(application):
        mapping = getattr(layer, "application_mapping", None)
        if isinstance(mapping, dict) and "websocket" in mapping:
            return [*_layers(application, until=layer), *_layers(mapping["websocket"])]
    return []


def _layers(application: Any, until: Any = None) -> list[Any]:
    found: list[Any] = []
    while application is not None and len(found) < MOST_LAYERS:
        if application is until:
            break
        found.append(application)
        inner = [
            getattr(application, name, None)
            for name in ("inner", "application", "app", "asgi_app")
        ]
        application = next((x for x in inner if callable(x)), None)
    return found


def _minds_origin(layer: Any) -> bool:
    """Whether the code of a layer, other than Channels' own, speaks of the origin."""
    kind = layer if inspect.isclass(layer) else type(layer)
    if "origin" in kind.__name__.lower():
        return True
    if kind.__module__.startswith("channels."):
        return False
    try:
        source = inspect.getsource(layer if inspect.isfunction(layer) else kind)
    except (OSError, TypeError):
        return False
    return "origin" in source.lower()


def _consumers(router: Any, depth: int = 0) -> Iterator[Any]:
    for route in getattr(router, "routes", ()) if depth < MOST_LAYERS else ():
        callback = getattr(route, "callback", None)
        consumer = getattr(callback, "consumer_class", None)
        if consumer is not None:
            yield from (
                base
                for base in consumer.__mro__
                if not base.__module__.startswith(("channels.", "builtins"))
            )
        elif callback is not None:
            yield callback
            yield from _consumers(callback, depth + 1)


def _router_place(context: Context) -> Any:
    import ast

    for module in context.sources.containing(b"ProtocolTypeRouter"):
        for node in ast.walk(module.tree):
            match node:
                case ast.Dict(keys=keys):
                    for key in keys:
                        if isinstance(key, ast.Constant) and key.value == "websocket":
                            return context.module_place(module, key)
    return None
