"""What an entry file (manage.py, asgi.py) sets up, read without running it.

The environment variables that it sets, and the folders that it adds to `sys.path`.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path, PurePath

from djasgi.frozen import Frozen
from djasgi.source import Guard, calls, environment_read, is_environ, statements, text

_MAX_TEXT = 4096  # characters of an evaluated path: `a = a + a` doubles on every line


class Variable(Frozen):
    """An environment variable that a file sets."""

    value: str | None  # None: computed
    line: int
    assigned: bool  # False: a default, which a value that is already there beats


def environment(tree: ast.Module) -> dict[str, Variable]:
    """The environment variables that a file sets, with the value it settles on.

    What runs unconditionally comes first: the last assignment, else the first default.
    Of conditional ones, those that only tests reach are ignored; if the others do not
    agree, the variable is left out.
    """
    seen: dict[str, list[tuple[Variable, Guard]]] = {}
    for node, guard in statements(tree):
        for name, variable in _variables(node):
            inner = guard
            if guard.unset == name:
                variable = variable.replaced(assigned=False)  # noqa: PLW2901 (it is one)
            elif guard.unset is not None:
                inner = guard.replaced(certain=False)
            seen.setdefault(name, []).append((variable, inner))
    settled = {name: _settle(found) for name, found in seen.items()}
    return {name: variable for name, variable in settled.items() if variable}


def _settle(found: list[tuple[Variable, Guard]]) -> Variable | None:
    certain = [variable for variable, guard in found if guard.certain]
    if assigned := [variable for variable in certain if variable.assigned]:
        return assigned[-1]
    if certain:
        return certain[0]
    possible = [variable for variable, guard in found if not guard.testing]
    if len({variable.value for variable in possible}) != 1:
        return None
    return possible[0].replaced(assigned=False)


def _variables(node: ast.stmt) -> Iterator[tuple[str, Variable]]:
    match node:
        case ast.Assign(
            targets=[ast.Subscript(value=where, slice=ast.Constant(value=str(name)))],
            value=value,
        ) if is_environ(where):
            yield name, _assigned(name, value)
    for call in calls(node):
        match call:
            case ast.Call(
                func=ast.Attribute(value=where, attr="setdefault"),
                args=[ast.Constant(value=str(name)), value],
            ) if is_environ(where):
                yield name, Variable(text(value), call.lineno, assigned=False)


def _assigned(name: str, value: ast.expr) -> Variable:
    # os.environ["X"] = os.environ.get("X", "default") is a default in disguise.
    read = environment_read(value) if isinstance(value, ast.Call) else None
    if read and read[0] == name and read[1] is not None:
        return Variable(text(read[1]), value.lineno, assigned=False)
    return Variable(text(value), value.lineno, assigned=True)


def path_insertions(tree: ast.Module, file: Path) -> tuple[Path, ...]:
    """The folders that a file adds to `sys.path`, as far as `__file__` gives them."""
    evaluator = _PathEvaluator(file)
    found: dict[Path, None] = {}
    for node, guard in statements(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                evaluator.assign(name, value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                evaluator.assign(name, value)
        for call in calls(node) if not guard.testing else ():
            match call:
                case ast.Call(
                    func=ast.Attribute(
                        value=ast.Attribute(value=ast.Name(id="sys"), attr="path"),
                        attr="append" | "insert" as method,
                    ),
                    args=args,
                ) if len(args) == (1 if method == "append" else 2):
                    if folder := evaluator.folder(args[-1]):
                        found[folder] = None
    return tuple(found)


class _PathEvaluator:
    """Evaluates the expressions that entry files build paths with, and nothing else."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._names: dict[str, str | Path | None] = {"__file__": str(file)}

    def assign(self, name: str, node: ast.expr) -> None:
        self._names[name] = self._value(node)

    def folder(self, node: ast.expr) -> Path | None:
        value = self._value(node)
        # A relative one depends on the working directory, not on the file.
        if value is None or "\0" in str(value) or not Path(value).is_absolute():
            return None
        return Path(os.path.normpath(value))

    def _value(self, node: ast.expr) -> str | Path | None:
        try:
            value = self._evaluate(node)
        except (OSError, ValueError, TypeError, IndexError, RuntimeError):
            return None  # RuntimeError: nested too deep, or a loop of links
        return value if value is not None and len(str(value)) <= _MAX_TEXT else None

    def _evaluate(self, node: ast.expr) -> str | Path | None:
        match node:
            case ast.Constant(value=str(literal)):
                return literal
            case ast.Name(id=name):
                return self._names.get(name)
            case ast.Attribute(value=value, attr="parent"):
                return self._path(value).parent
            case ast.Attribute(value=ast.Name(id="os"), attr="pardir"):
                return os.pardir
            case ast.Subscript(
                value=ast.Attribute(value=value, attr="parents"),
                slice=ast.Constant(value=int(index)),
            ):
                return self._path(value).parents[index]
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return Path(self._known(left)) / self._known(right)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._plain(left) + self._plain(right)
            case ast.Call(func=ast.Name(id=name), args=args):
                return self._function(name, args)
            case ast.Call(func=ast.Attribute(value=owner, attr=name), args=args):
                known = self._value(owner)
                if isinstance(known, Path):
                    return self._method(known, name, args)
                return self._function(name, args) if known is None else None
        return None

    def _function(self, name: str, args: list[ast.expr]) -> str | Path | None:
        values = [self._known(arg) for arg in args]
        match name, values:
            case (("Path" | "PurePath" | "PosixPath"), [_, *_]):
                return Path(*values)
            case (("str" | "fspath"), [value]):
                return str(value)
            case "join", [first, *rest]:
                return os.path.join(first, *rest)  # noqa: PTH118 (what the file calls)
            case (("abspath" | "normpath"), [value]):
                return (
                    os.path.normpath(value) if PurePath(value).is_absolute() else None
                )
            case "realpath", [value]:
                return (
                    os.path.realpath(value) if PurePath(value).is_absolute() else None
                )
            case "dirname", [value]:
                return os.path.dirname(value)  # noqa: PTH120 (what the file calls)
        return None

    def _method(self, path: Path, name: str, args: list[ast.expr]) -> str | Path | None:
        values = [self._known(arg) for arg in args]
        match name, values:
            case "resolve", []:
                return path.resolve()
            case "absolute", []:
                return path if path.is_absolute() else None
            case (("as_posix" | "__str__"), []):
                return path.as_posix()
            case "joinpath", _:
                return path.joinpath(*values)
        return None

    def _known(self, node: ast.expr) -> str | Path:
        value = self._value(node)
        if value is None:
            raise ValueError("not known without running it")
        return value

    def _path(self, node: ast.expr) -> Path:
        value = self._known(node)
        if isinstance(value, str):
            raise TypeError("text has no parent")
        return value

    def _plain(self, node: ast.expr) -> str:
        value = self._known(node)
        if not isinstance(value, str):
            raise TypeError("paths cannot be added")
        return value
