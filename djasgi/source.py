"""Python source read as text: what a file says, without running it.

Nothing here imports the user's code: real entry files wait for databases, load secrets
and patch modules. What cannot be told from the text is left out, never guessed.
"""

from __future__ import annotations

import ast
import re
import stat
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from djasgi.frozen import Frozen

MAX_SOURCE = 1024 * 1024
"""The largest file that is read, in bytes."""

_TESTS = re.compile(r"(?:^|[^a-z]|py)test", re.IGNORECASE)


def is_file(path: Path) -> bool:
    """Whether `path` is a regular file, also for names that no file can have."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder, also for names that no folder can have."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def parse(path: Path) -> ast.Module | None:
    """The syntax tree of a file, or None.

    None is: not a regular file, unreadable, more than `MAX_SOURCE` bytes, or not Python
    (syntax, encoding, null bytes, nested deeper than the parser goes).
    """
    if not is_file(path):
        return None
    try:
        with path.open("rb") as file:
            source = file.read(MAX_SOURCE + 1)
        if len(source) > MAX_SOURCE:
            return None
        with warnings.catch_warnings():
            # An invalid escape in the user's file is theirs to hear of, at the import.
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


class Guard(Frozen):
    """Under what condition a statement runs."""

    certain: bool = True
    testing: bool = False  # only while tests run
    unset: str | None = None  # only if this environment variable is not set
    nested: bool = False  # in the body of a function or class


def statements(tree: ast.Module) -> Iterator[tuple[ast.stmt, Guard]]:
    """Every statement of a file, in order, with its guard.

    Function bodies count as run: an entry file defines `main` in order to call it.
    """
    stack: list[tuple[ast.stmt, Guard]] = [(node, Guard()) for node in tree.body[::-1]]
    while stack:
        node, guard = stack.pop()
        yield node, guard
        for body, inner in reversed(_blocks(node, guard)):
            stack.extend((child, inner) for child in reversed(body))


def _blocks(node: ast.stmt, guard: Guard) -> list[tuple[list[ast.stmt], Guard]]:
    maybe = guard.replaced(certain=False)
    match node:
        case ast.If():
            then, otherwise = _branches(node.test, guard)
            return [(node.body, then), (node.orelse, otherwise)]
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            inner = guard.replaced(nested=True)
            if _TESTS.search(node.name):
                inner = inner.replaced(certain=False, testing=True)
            return [(node.body, inner)]
        case ast.With() | ast.AsyncWith():
            return [(node.body, guard)]
        case ast.For() | ast.AsyncFor() | ast.While():
            return [(node.body, maybe), (node.orelse, maybe)]
        case ast.Try() | ast.TryStar():
            handlers = [(handler.body, maybe) for handler in node.handlers]
            rest = [(node.orelse, guard), (node.finalbody, guard)]
            return [(node.body, guard), *handlers, *rest]
        case ast.Match():
            return [(case.body, maybe) for case in node.cases]
        case _:
            return []


def _branches(test: ast.expr, guard: Guard) -> tuple[Guard, Guard]:
    maybe = guard.replaced(certain=False)
    if _is_main(test):
        return guard, maybe
    if variable := _unset_variable(test):
        certain = guard.certain and guard.unset is None
        return guard.replaced(unset=variable, certain=certain), maybe
    if _mentions_tests(test):
        testing = maybe.replaced(testing=True)
        return (maybe, testing) if _is_negated(test) else (testing, maybe)
    return maybe, maybe


def _is_main(test: ast.expr) -> bool:
    match test:
        case ast.Compare(
            left=ast.Name(id="__name__"),
            ops=[ast.Eq()],
            comparators=[ast.Constant(value="__main__")],
        ):
            return True
    return False


def _unset_variable(test: ast.expr) -> str | None:
    """The variable of `"X" not in os.environ` or `not os.environ.get("X")`."""
    match test:
        case ast.Compare(
            left=ast.Constant(value=str(name)), ops=[ast.NotIn()], comparators=[where]
        ) if is_environ(where):
            return name
        case (
            ast.UnaryOp(op=ast.Not(), operand=ast.Call() as call)
            | ast.Compare(
                left=ast.Call() as call,
                ops=[ast.Is()],
                comparators=[ast.Constant(value=None)],
            )
        ):
            read = environment_read(call)
            return read[0] if read else None
    return None


def _mentions_tests(test: ast.expr) -> bool:
    for node in ast.walk(test):
        match node:
            case (
                ast.Name(id=str(word))
                | ast.Attribute(attr=str(word))
                | ast.Constant(value=str(word))
            ) if _TESTS.search(word):
                return True
    return False


def _is_negated(test: ast.expr) -> bool:
    match test:
        case ast.UnaryOp(op=ast.Not()):
            return True
        case ast.Compare(ops=[ast.NotIn() | ast.NotEq()]):
            return True
    return False


def environment_read(call: ast.Call) -> tuple[str, ast.expr | None] | None:
    """The name and default of `os.environ.get(name, default)` or `os.getenv(…)`."""
    match call.func:
        case ast.Attribute(value=where, attr="get") if is_environ(where):
            pass
        case ast.Attribute(attr="getenv") | ast.Name(id="getenv"):
            pass
        case _:
            return None
    match call.args:
        case [ast.Constant(value=str(name))]:
            return name, None
        case [ast.Constant(value=str(name)), default]:
            return name, default
    return None


def is_environ(node: ast.expr) -> bool:
    match node:
        case ast.Name(id="environ") | ast.Attribute(attr="environ"):
            return True
    return False


def text(node: ast.expr) -> str | None:
    """The value of a string literal."""
    match node:
        case ast.Constant(value=str(value)):
            return value
    return None


def calls(node: ast.stmt) -> Iterator[ast.Call]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            yield from (part for part in ast.walk(child) if isinstance(part, ast.Call))


def definitions(tree: ast.Module) -> dict[str, int]:
    """The names that a module defines at its top level, and the line of the last time.

    A star import is the name `*`.
    """
    lines: dict[str, int] = {}
    for node, guard in statements(tree):
        if not guard.nested:
            lines.update((name, node.lineno) for name in bound_names(node))
    return lines


def bound_names(node: ast.stmt) -> Iterator[str]:
    """The names that a statement binds, without those of its blocks."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield node.name
        case ast.Import():
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0]
        case ast.ImportFrom():
            for alias in node.names:
                yield alias.asname or alias.name
        case ast.Assign():
            for target in node.targets:
                yield from _stored(target)
        case ast.AnnAssign(target=target, value=ast.expr()):
            yield from _stored(target)
        case ast.For(target=target) | ast.AsyncFor(target=target):
            yield from _stored(target)
        case ast.AugAssign(target=target):
            yield from _stored(target)
        case ast.With(items=items) | ast.AsyncWith(items=items):
            for item in items:
                if item.optional_vars:
                    yield from _stored(item.optional_vars)


def _stored(target: ast.expr) -> Iterator[str]:
    for part in ast.walk(target):
        match part:
            case ast.Name(id=name, ctx=ast.Store()):
                yield name


def shown(text: str | Path) -> str:
    """Text for people: a file's name may hold control characters, or no text at all."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in str(text)
    )


def enumerated(names: Sequence[str], at_most: int = 8) -> str:
    """`names` in a sentence, the first few of very many."""
    more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
    return ", ".join(names[:at_most]) + more
