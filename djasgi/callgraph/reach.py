"""What runs on the event loop: from views, consumers and middleware through calls."""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from djasgi.callgraph.names import Class, Function, Index, Unset

MAX_FUNCTIONS = 20_000

_TRANSPARENT = {
    *("staticmethod", "classmethod", "builtins.staticmethod", "builtins.classmethod"),
    *("functools.lru_cache", "functools.cache", "functools.wraps", "typing.override"),
    *("typing_extensions.override", "typing.no_type_check", "abc.abstractmethod"),
}


@dataclass(frozen=True, slots=True)
class Step:
    """A call, made in `function`."""

    function: Function
    call: ast.Call


@dataclass(frozen=True, slots=True)
class Reached:
    """A function that runs on the event loop, and the calls that lead to it."""

    function: Function
    trail: tuple[Step, ...]
    serving: bool  # in the course of a request, by a view, consumer or middleware

    @property
    def entry(self) -> Function:
        return self.trail[0].function if self.trail else self.function


def on_the_loop(index: Index) -> Iterator[Reached]:
    """Every function that runs on an event loop, each once, by its shortest way.

    First what views, consumers and middleware reach, then all other asynchronous code.
    """
    seen: set[_Key] = set()
    others: list[Function] = []
    entries: list[Function] = []
    for module in index.sources.containing(b"async def"):
        for function in index.scope(module).functions_with("async def"):
            if is_entry(function, index):
                entries.append(function)
            elif function.is_async and not _in_loop_of_its_own(function):
                others.append(function)
    yield from _spread(entries, index, seen, serving=True)
    yield from _spread(others, index, seen, serving=False)


_Key = tuple[ast.AST, Unset]


def _key(function: Function) -> _Key:
    return function.node, function.unset


def _spread(
    start: Sequence[Function], index: Index, seen: set[_Key], *, serving: bool
) -> Iterator[Reached]:
    fresh = [function for function in start if _key(function) not in seen]
    seen.update(map(_key, fresh))
    pending = deque(Reached(function, (), serving) for function in fresh)
    while pending and len(seen) < MAX_FUNCTIONS:
        reached = pending.popleft()
        yield reached
        try:
            calls = [*_callees(reached.function, index)]
        except RecursionError:
            continue  # nested beyond all reason
        for call, callee in calls:
            if _key(callee) not in seen and _follows(callee, index):
                seen.add(_key(callee))
                trail = (*reached.trail, Step(reached.function, call))
                pending.append(Reached(callee, trail, serving))


def is_entry(function: Function, index: Index) -> bool:
    """Whether a function is an asynchronous view, consumer or middleware.

    Told by its shape: it takes a request, or scope, receive and send; or it is a method
    of a consumer.
    """
    if not function.is_async or _in_loop_of_its_own(function):
        return False
    parameters = function.parameters
    if parameters[:1] == ("request",) or parameters[:3] == ("scope", "receive", "send"):
        return not function.is_generator
    owner = function.owner
    return owner is not None and any(
        path.rpartition(".")[2].endswith("Consumer") for path in index.ancestry(owner)
    )


def _in_loop_of_its_own(function: Function) -> bool:
    return any(_named(d) == "async_to_sync" for d in function.node.decorator_list)


def _callees(function: Function, index: Index) -> Iterator[tuple[ast.Call, Function]]:
    for node in function.nodes:
        if isinstance(node, ast.Call):
            found = index.called(node, function)
            if isinstance(found, Class):
                found = found.methods.get("__init__")
            if found is not None:
                yield node, found.given(node)


def _follows(callee: Function, index: Index) -> bool:
    """Whether a call of this function runs its body here and now."""
    if callee.is_async:
        return not _in_loop_of_its_own(callee)  # whatever else wraps it awaits it
    if callee.is_generator:
        return False
    if any(isinstance(node, ast.Global) for node in callee.nodes):
        return False  # it keeps what it finds: most calls do nothing
    outer = callee.outer or callee
    for decorator in callee.node.decorator_list:
        target = decorator.func if isinstance(decorator, ast.Call) else decorator
        path = index.dotted(target, outer) or _named(target)
        if path not in _TRANSPARENT:
            return False
    return True


def _named(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=func):
            return _named(func)
    return ""
