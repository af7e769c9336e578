"""Async safety: what blocks the event loop, what is refused on it, what it costs."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from djasgi.callgraph.blocking import blocking_calls
from djasgi.callgraph.names import Class, Function, Index
from djasgi.callgraph.orm import queries
from djasgi.callgraph.reach import Reached, on_the_loop
from djasgi.checks.base import Finding, Needs, Place, check
from djasgi.checks.context import Context

T = TypeVar("T")

ASYNC = "https://docs.djangoproject.com/en/stable/topics/async/"
QUERIES = (
    "https://docs.djangoproject.com/en/stable/topics/db/queries/#asynchronous-queries"
)


def _reached(context: Context) -> tuple[Index, list[Reached]]:
    """What runs on the event loop: found once, for all checks that ask."""
    if context.on_the_loop is None:
        index = Index(context.sources)
        context.on_the_loop = (index, list(on_the_loop(index)))
    return context.on_the_loop


def _within(
    look: Callable[[Function, Index], Iterator[T]], function: Function, index: Index
) -> list[T]:
    """What is found in a function; nothing where it is nested beyond all reason."""
    try:
        return [*look(function, index)]
    except RecursionError:
        return []


def _place(context: Context, function: Function, node: ast.AST) -> Place:
    return context.module_place(function.scope.module, node, function.name)


def _trail(context: Context, reached: Reached) -> tuple[Place, ...]:
    return tuple(_place(context, step.function, step.call) for step in reached.trail)


def _located(
    context: Context, reached: Reached, node: ast.AST
) -> tuple[Place, tuple[Place, ...]]:
    """The place to show first, where the view is, and the calls on to the fault."""
    fault = _place(context, reached.function, node)
    trail = _trail(context, reached)
    return (trail[0], (*trail[1:], fault)) if trail else (fault, ())


def _kind(function: Function, index: Index) -> str:
    """A view, a consumer or a middleware, for a sentence."""
    owner = function.owner
    if owner is not None and any(
        path.endswith("Consumer") for path in index.ancestry(owner)
    ):
        return "an async consumer"
    if function.parameters[:3] == ("scope", "receive", "send"):
        return "an ASGI application"
    if function.parameters[:1] != ("request",):
        return "an async function"
    if function.node.name in ("__call__", "__acall__") or function.outer is not None:
        return "an async middleware"
    return "an async view"


@check(
    "E031",
    "An async view is refused by ATOMIC_REQUESTS",
    row=18,
    needs=Needs.SETTINGS,
    why="Transactions do not work in asynchronous code. With ATOMIC_REQUESTS Django raises "
    'RuntimeError, "You cannot use ATOMIC_REQUESTS with async views", for every request '
    "to such a view, and only then.",
    links=(
        "https://docs.djangoproject.com/en/stable/topics/db/transactions/#tying-transactions-to-http-requests",
        ASYNC,
    ),
    example='DATABASES["default"]["ATOMIC_REQUESTS"] = True\n\n'
    "async def report(request): …",
)
def atomic_requests(context: Context) -> Iterator[Finding]:
    from asgiref.sync import iscoroutinefunction

    aliases = [
        alias
        for alias, database in (context.settings.DATABASES or {}).items()
        if database.get("ATOMIC_REQUESTS")
    ]
    if not aliases:
        return
    seen: set[object] = set()
    for view in views(context):
        exempt: set[str] = getattr(view, "_non_atomic_requests", set())
        if view in seen or not iscoroutinefunction(view) or set(aliases) <= set(exempt):
            continue
        seen.add(view)
        yield Finding(
            f"ATOMIC_REQUESTS is on for {', '.join(map(repr, aliases))}, and "
            f"{view_name(view)} is asynchronous: each request to it is a 500.",
            "Decorate it with django.db.transaction.non_atomic_requests, or make it "
            "synchronous.",
            view_place(view),
        )


def views(context: Context) -> Iterator[Any]:
    """The views of the URLconf."""
    from django.urls import URLPattern, get_resolver

    if not getattr(context.settings, "ROOT_URLCONF", None):
        return
    pending = list(get_resolver().url_patterns)
    for pattern in pending:
        if isinstance(pattern, URLPattern):
            yield pattern.callback
        else:
            pending += pattern.url_patterns


def view_name(view: Any) -> str:
    kind = getattr(view, "view_class", view)
    return f"{kind.__module__}.{getattr(kind, '__qualname__', type(kind).__name__)}"


def view_place(view: Any) -> Place | None:
    import inspect
    from pathlib import Path

    try:
        target = inspect.unwrap(getattr(view, "view_class", view))
        lines, line = inspect.getsourcelines(target)
        return Place(Path(inspect.getsourcefile(target) or ""), line, lines[0].strip())
    except (OSError, TypeError, ValueError):
        return None


@check(
    "E032",
    "Synchronous database code on the event loop",
    row=20,
    needs=Needs.FILES,
    why="Django refuses to query the database from the event loop: SynchronousOnlyOperation, "
    '"You cannot call this from an async context". No linter sees it; the line is found '
    "when somebody asks for the page. Every query method has a form with `a` in front, a "
    "queryset is gone through with `async for`, and transactions run inside "
    "sync_to_async. Calls are followed within the project.",
    links=(QUERIES, f"{ASYNC}#async-safety"),
    example="async def cart(request, pk):\n    order = Order.objects.get(pk=pk)",
)
def database_on_the_loop(context: Context) -> Iterator[Finding]:
    index, reached = _reached(context)
    seen: set[ast.AST] = set()
    for one in reached:
        for query in _within(queries, one.function, index):
            if query.node in seen:
                continue
            seen.add(query.node)
            place, trail = _located(context, one, query.node)
            remedy = f"Use {query.instead}"
            if not one.function.is_async:
                remedy = (
                    f"Call {one.function.name} through sync_to_async, or make it async"
                )
            yield Finding(
                f"{query.what} in {_kind(one.entry, index)} raises "
                "SynchronousOnlyOperation.",
                f"{remedy}.",
                place,
                diff=_awaited(one.function, query.node, query.rename),
                trail=trail,
            )


def _awaited(function: Function, node: ast.expr, rename: str) -> str:
    """The one-line change from `X.objects.get(…)` to `await X.objects.aget(…)`."""
    if not rename or not function.is_async or node.end_lineno != node.lineno:
        return ""
    whole = any(
        isinstance(statement, ast.Assign | ast.Return | ast.Expr | ast.AnnAssign)
        and statement.value is node
        for statement in function.nodes
    )
    if not whole or not isinstance(node, ast.Call):
        return ""
    assert isinstance(node.func, ast.Attribute)  # noqa: S101  # what is renamed
    data = function.scope.module.lines[node.lineno - 1].encode()
    end = node.func.end_col_offset or 0
    start = end - len(rename.encode())
    changed = (
        data[: node.col_offset] + b"await " + data[node.col_offset : start] + b"a"
        + data[start:]
    )  # fmt: skip
    old, new = data.decode().strip(), changed.decode().strip()
    return f"- {old}\n+ {new}"


@check(
    "W034",
    "An async view blocks the event loop",
    row=19,
    needs=Needs.FILES,
    why="All asynchronous code of a worker shares one thread. While a call waits there for "
    "a network, a process or a clock, the worker answers nobody: other requests, "
    "websockets and health checks stand still, and a supervisor may take it for dead. "
    "Not reported is what rarely waits long, such as opening a local file.",
    links=(
        f"{ASYNC}#async-views",
        "https://docs.astral.sh/ruff/rules/#flake8-async-async",
    ),
    example="async def checkout(request):\n    reply = requests.post(url, json=order)",
)
def blocking(context: Context) -> Iterator[Finding]:
    index, reached = _reached(context)
    seen: set[ast.AST] = set()
    for one in reached:
        if not one.serving:
            continue
        kind = _kind(one.entry, index)
        for found in _within(blocking_calls, one.function, index):
            if found.call in seen:
                continue
            seen.add(found.call)
            place, trail = _located(context, one, found.call)
            yield Finding(
                f"While {found.what} waits, this worker answers nobody.",
                f"Use {found.instead}.",
                place,
                trail=trail,
                title=f"{kind[0].upper()}{kind[1:]} blocks the event loop",
            )


@check(
    "W035",
    "A streamed response is not streamed",
    row=22,
    needs=Needs.FILES,
    why="On ASGI Django goes through a synchronous iterator to its end before it sends the "
    "first byte: the whole response is in memory, the client waits, an event stream "
    "never begins. Django warns about it at run time only.",
    links=(
        "https://docs.djangoproject.com/en/stable/ref/request-response/#streaminghttpresponse-objects",
    ),
    example="def rows():\n    yield …\n\n"
    "def export(request):\n    return StreamingHttpResponse(rows())",
)
def synchronous_stream(context: Context) -> Iterator[Finding]:
    index, _ = _reached(context)
    for module in context.sources.containing(b"StreamingHttpResponse"):
        for function in index.scope(module).functions_with("StreamingHttpResponse"):
            for node, given in _within(_synchronous_streams, function, index):
                yield Finding(
                    f"{ast.unparse(given)[:60]} is a synchronous iterator: on ASGI the "
                    "whole response is made before its first byte is sent.",
                    "Make the generator async def, or return a plain HttpResponse if it "
                    "is small.",
                    _place(context, function, node),
                )


def _synchronous_streams(
    function: Function, index: Index
) -> Iterator[tuple[ast.Call, ast.expr]]:
    for node in function.nodes:
        if isinstance(node, ast.Call) and _streams(node, function, index):
            given = _content(node)
            if given is not None and _is_synchronous(given, function, index):
                yield node, given


def _streams(call: ast.Call, function: Function, index: Index) -> bool:
    path = index.dotted(call.func, function) or ""
    return path.startswith("django.http") and path.endswith(".StreamingHttpResponse")


def _content(call: ast.Call) -> ast.expr | None:
    if call.args:
        return call.args[0]
    return next((k.value for k in call.keywords if k.arg == "streaming_content"), None)


def _is_synchronous(node: ast.expr, function: Function, index: Index) -> bool:
    """Whether an expression is certainly a synchronous generator."""
    match node:
        case ast.GeneratorExp(generators=generators):
            return not any(g.is_async for g in generators)
        case ast.Call():
            if index.dotted(node.func, function) == "builtins.map":
                return True
            found = index.called(node, function)
            if isinstance(found, Class) or found is None:
                return False
            plain = not found.node.decorator_list
            return plain and found.is_generator and not found.is_async
        case ast.Name(id=name) if name in function.bound:
            from djasgi.callgraph.blocking import local_values

            values = local_values(name, function)
            return (
                len(values) == 1
                and name not in function.parameters
                and not isinstance(values[0], ast.Name)
                and _is_synchronous(values[0], function, index)
            )
    return False


@check(
    "I033",
    "Middleware in an order that costs thread hops",
    row=16,
    needs=Needs.SETTINGS,
    why="Django runs asynchronous views on the event loop and every synchronous hook of a "
    "middleware in a thread: each change is a hop, and hops dominate what a small request "
    "costs. A middleware that cannot be asynchronous makes those outside it run in the "
    "same thread, so the same list in another order may cost a third. Only with "
    "--handler django: djasgi's own handler takes neighbours in one hop.",
    links=(
        f"{ASYNC}#performance",
        "https://docs.djangoproject.com/en/stable/ref/middleware/#middleware-ordering",
    ),
    example='MIDDLEWARE = [\n    "shop.middleware.plain",   # a synchronous function\n'
    '    "django.middleware.security.SecurityMiddleware",\n    …\n]',
)
def middleware_order(context: Context) -> Iterator[Finding]:
    from asgiref.sync import iscoroutinefunction

    from djasgi.compatibility import handler
    from djasgi.ordering import cheapest, hops, loaded_stack

    if context.plan is not None and handler(context.plan).name != "django":
        return
    if not any(iscoroutinefunction(view) for view in views(context)):
        return
    stack = loaded_stack()
    better = cheapest(stack, view_is_async=True)
    if better is None:
        return
    now = hops(stack, view_is_async=True)
    yield Finding(
        f"A request to an async view changes threads {now} times. With "
        f"{better.moved.path} after {better.after.path} it would be {better.hops}.",
        "Move it, if it does not depend on its place, or make it async-capable.",
        context.setting("MIDDLEWARE", better.moved.path),
    )
