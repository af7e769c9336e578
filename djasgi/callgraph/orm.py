"""Database calls that Django refuses on the event loop.

https://docs.djangoproject.com/en/stable/topics/db/queries/#asynchronous-queries
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from operator import or_

from djasgi.callgraph.blocking import local_values
from djasgi.callgraph.names import Class, Function, Index

TERMINAL = {
    *("get", "create", "get_or_create", "update_or_create", "bulk_create", "count"),
    *("bulk_update", "aggregate", "exists", "first", "last", "earliest", "latest"),
    *("in_bulk", "delete", "update", "contains", "explain", "create_user"),
    "create_superuser",
}
"""Methods of a manager or queryset that query at once; `a` and the name is the other."""

LAZY = {
    *("all", "filter", "exclude", "order_by", "select_related", "prefetch_related"),
    *("annotate", "alias", "values", "values_list", "distinct", "only", "defer"),
    *("reverse", "using", "union", "intersection", "difference", "select_for_update"),
    *("dates", "datetimes", "extra", "complex_filter"),
}
"""Methods that return a queryset, which queries when it is gone through."""

_ENDS = {*TERMINAL, *(f"a{name}" for name in TERMINAL), "none", "iterator", "aiterator"}

_CONSUMERS = {
    f"builtins.{name}"
    for name in ("list", "tuple", "set", "frozenset", "sorted", "len", "sum", "max",
                 "min", "any", "all", "dict", "bool")
}  # fmt: skip
_PASS_ON = {f"builtins.{name}" for name in ("enumerate", "zip", "reversed", "iter")}

FUNCTIONS = {
    "django.shortcuts.get_object_or_404": "aget_object_or_404",
    "django.shortcuts.get_list_or_404": "aget_list_or_404",
    "django.contrib.auth.authenticate": "aauthenticate",
    "django.contrib.auth.login": "alogin",
    "django.contrib.auth.update_session_auth_hash": "aupdate_session_auth_hash",
    "django.db.transaction.atomic": "",
    "django.db.connection.cursor": "",
}

_INSTANCE = {
    "save": "asave",
    "delete": "adelete",
    "refresh_from_db": "arefresh_from_db",
}
_OTHER_ORMS = {
    "mongoengine",
    "ormar",
    "tortoise",
    "beanie",
    "odmantic",
    "edgy",
    "saffier",
}


@dataclass(frozen=True, slots=True)
class Query:
    """A query on the event loop: where, what, and what to write instead."""

    node: ast.expr
    what: str
    instead: str
    rename: str = ""  # the attribute that becomes `await … a<attribute>`


def queries(function: Function, index: Index) -> Iterator[Query]:
    """The synchronous database calls in a function."""
    if _other_orm(function):
        return
    awaited = {id(n.value) for n in function.nodes if isinstance(n, ast.Await)}
    for node in function.nodes:
        match node:
            case ast.Call():
                yield from _call(node, function, index, awaited=id(node) in awaited)
            case ast.For(iter=iterated) | ast.comprehension(iter=iterated, is_async=0):
                yield from _iteration(iterated, function, index)
            case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
                yield from _truth(test, function, index)
            case ast.Subscript(
                value=value, slice=ast.Constant(value=int()), ctx=ast.Load()
            ) if _is_queryset(value, function, index):
                yield Query(node, ast.unparse(value), "await ….afirst()")


def _other_orm(function: Function) -> bool:
    paths = (*function.scope.imports.values(), *function.imports.values())
    return any(path.partition(".")[0] in _OTHER_ORMS for path in paths)


def _call(
    call: ast.Call, function: Function, index: Index, *, awaited: bool
) -> Iterator[Query]:
    path = index.dotted(call.func, function)
    if path in FUNCTIONS:
        other = FUNCTIONS[path]
        instead = (
            f"await {other}(…)" if other else "await sync_to_async(…), around it all"
        )
        yield Query(call, path.removeprefix("django."), instead)
        return
    if path in _CONSUMERS and len(call.args) == 1:
        if _is_queryset(call.args[0], function, index):
            what = f"{ast.unparse(call.func)}({_short(call.args[0])})"
            yield Query(call, what, "[item async for item in …]")
        return
    if not isinstance(call.func, ast.Attribute):
        return
    name, owner = call.func.attr, call.func.value
    if name in TERMINAL and _from_manager(owner, function, index):
        if awaited and not _is_model(_root(owner), function, index):
            return  # another library's manager may be asynchronous under these names
        yield Query(call, f"{_short(owner)}.{name}()", f"await ….a{name}(…)", name)
    elif name in _INSTANCE and _is_instance(owner, function, index):
        yield Query(
            call, f"{_short(owner)}.{name}()", f"await ….{_INSTANCE[name]}(…)", name
        )


def _iteration(node: ast.expr, function: Function, index: Index) -> Iterator[Query]:
    if isinstance(node, ast.Call) and index.dotted(node.func, function) in _PASS_ON:
        inner = [arg for arg in node.args if _is_queryset(arg, function, index)]
    else:
        inner = [node] if _is_queryset(node, function, index) else []
    for found in inner:
        yield Query(found, f"for … in {_short(found)}", "async for")


def _truth(test: ast.expr, function: Function, index: Index) -> Iterator[Query]:
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        test = test.operand
    if _is_queryset(test, function, index):
        yield Query(test, f"the truth of {_short(test)}", "await ….aexists()")


def _from_manager(
    node: ast.expr, function: Function, index: Index, depth: int = 0
) -> bool:
    """Whether an expression is a manager, or a queryset made from one."""
    match node:
        case ast.Attribute(attr="objects" | "_default_manager" | "_base_manager"):
            return True
        case ast.Call(func=ast.Attribute(value=owner, attr=name)):
            return name not in _ENDS and _from_manager(owner, function, index, depth)
        case ast.Subscript(value=owner, slice=ast.Slice()):
            return _from_manager(owner, function, index, depth)
        case ast.Name():
            return _is_queryset(node, function, index, depth)
    return False


def _is_queryset(
    node: ast.expr, function: Function, index: Index, depth: int = 0
) -> bool:
    """Whether an expression is certainly a queryset that was not gone through yet.

    A name is one if it is set to nothing else; those values are at `depth` 1, where
    names are not looked up again.
    """
    match node:
        case ast.Call(func=ast.Attribute(value=owner, attr=name)) if name in LAZY:
            return _from_manager(owner, function, index, depth)
        case ast.Subscript(value=owner, slice=ast.Slice(step=None)):
            return _is_queryset(owner, function, index, depth)
        case ast.Name(id=name) if (
            depth == 0 and name in function.bound and name not in function.parameters
        ):
            values = local_values(name, function)
            made = [_is_queryset(value, function, index, 1) for value in values]
            narrowed = [_extends(value, name) for value in values]
            return (
                any(made)
                and all(map(or_, made, narrowed))
                and not _gone_through(name, function)
            )
    return False


def _extends(value: ast.expr, name: str) -> bool:
    """Whether a value is `name.filter(…)`: the same queryset, narrowed."""
    match value:
        case ast.Call(func=ast.Attribute(value=owner, attr=attr)) if attr in LAZY:
            return _extends(owner, name) or (
                isinstance(owner, ast.Name) and owner.id == name
            )
    return False


def _gone_through(name: str, function: Function) -> bool:
    """Whether a queryset has its results already: `async for` keeps them."""
    for node in function.nodes:
        match node:
            case (
                ast.AsyncFor(iter=ast.Name(id=other))
                | ast.comprehension(iter=ast.Name(id=other), is_async=1)
            ) if other == name:
                return True
            case ast.Call(func=ast.Call(), args=args):
                # sync_to_async(list)(queryset) and the like
                if any(isinstance(a, ast.Name) and a.id == name for a in args):
                    return True
            case ast.Await(value=ast.Call(args=args)):
                if any(isinstance(a, ast.Name) and a.id == name for a in args):
                    return True
    return False


_FETCHED = {"aget", "acreate", "afirst", "alast", "aearliest", "alatest"}
_FETCHED_PAIR = {"aget_or_create", "aupdate_or_create"}


def _is_instance(node: ast.expr, function: Function, index: Index) -> bool:
    """Whether an expression is certainly an instance of a model."""
    if not isinstance(node, ast.Name) or node.id in function.parameters:
        return False
    values = local_values(node.id, function)
    return bool(values) and all(_makes_instance(v, function, index) for v in values)


def _makes_instance(value: ast.expr, function: Function, index: Index) -> bool:
    match value:
        case ast.Await(value=ast.Call(func=ast.Attribute(value=owner, attr=name))) if (
            name in _FETCHED | _FETCHED_PAIR
        ):
            return _from_manager(owner, function, index)
        case ast.Await(value=ast.Call(func=func)):
            return index.dotted(func, function) == "django.shortcuts.aget_object_or_404"
        case ast.Call(func=func) if _is_model(func, function, index):
            return True
    # async for instance in Model.objects.all()
    return _is_queryset(value, function, index, 1)


def _is_model(node: ast.expr | None, function: Function, index: Index) -> bool:
    path = index.dotted(node, function) if node is not None else None
    found = index.defined(path) if path else None
    return isinstance(found, Class) and any(
        base.startswith("django.") and ".models." in base
        for base in index.ancestry(found)
    )


def _root(node: ast.expr) -> ast.expr | None:
    """The X of X.objects.filter(…)."""
    while True:
        match node:
            case ast.Attribute(value=value, attr="objects"):
                return value
            case ast.Call(func=func):
                node = func
            case ast.Attribute(value=value) | ast.Subscript(value=value):
                node = value
            case _:
                return None


MOST_TEXT = 60


def _short(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}…"
