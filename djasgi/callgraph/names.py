"""Names in a module: what they were imported from, what the project itself defines."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import cast

from djasgi.modules import imported_module
from djasgi.sources import Module, Sources

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
Unset = frozenset[tuple[str, bool]]
"""Parameters that a call leaves at a default that is false, and whether it is None."""

MAX_HOPS = 8
"""Re-exports and base classes that are followed in a row."""


@dataclass(frozen=True, eq=False)
class Function:
    """A function or method that the project defines."""

    scope: Scope
    node: FunctionNode
    owner: Class | None = None
    outer: Function | None = None  # the function it is defined in
    unset: Unset = frozenset()

    @property
    def name(self) -> str:
        return (
            f"{self.owner.node.name}.{self.node.name}" if self.owner else self.node.name
        )

    @property
    def is_async(self) -> bool:
        return isinstance(self.node, ast.AsyncFunctionDef)

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The names of its parameters, without self or cls."""
        args = self.node.args
        names = [arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
        names += [arg.arg for arg in (args.vararg, args.kwarg) if arg]
        static = any(
            isinstance(d, ast.Name) and d.id == "staticmethod"
            for d in self.node.decorator_list
        )
        return tuple(names[1:] if self.owner and not static else names)

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """What runs when the function runs, in order: nothing of inner functions."""
        return tuple(_executed(self.node.body, self.unset))

    def given(self, call: ast.Call) -> Function:
        """The function as this call runs it: without what its arguments rule out."""
        unset = self._unset(call)
        return replace(self, unset=unset) if unset else self

    def _unset(self, call: ast.Call) -> Unset:
        if any(isinstance(arg, ast.Starred) for arg in call.args) or any(
            keyword.arg is None for keyword in call.keywords
        ):
            return frozenset()
        args = self.node.args
        positional = [arg.arg for arg in (*args.posonlyargs, *args.args)]
        if self.owner is not None and positional[:1] in (["self"], ["cls"]):
            del positional[0]
        defaults = dict(zip(positional[::-1], args.defaults[::-1], strict=False))
        defaults |= {
            arg.arg: default
            for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)
            if default is not None
        }
        passed = {*positional[: len(call.args)], *(k.arg for k in call.keywords)}
        stored = {
            node.id
            for node in ast.walk(self.node)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        return frozenset(
            (name, default.value is None)
            for name, default in defaults.items()
            if name not in passed
            and name not in stored
            and isinstance(default, ast.Constant)
            and not default.value
        )

    @cached_property
    def is_generator(self) -> bool:
        return any(isinstance(node, ast.Yield | ast.YieldFrom) for node in self.nodes)

    @cached_property
    def imports(self) -> dict[str, str]:
        """What it imports itself."""
        found: dict[str, str] = {}
        for node in self.nodes:
            found |= _imports(node, self.scope.module)
        return found

    @cached_property
    def bound(self) -> frozenset[str]:
        """The names that are its own: parameters and what it assigns."""
        stored = {
            node.id
            for node in self.nodes
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        own = {arg.arg for arg in ast.walk(self.node.args) if isinstance(arg, ast.arg)}
        return frozenset(stored | own)

    @cached_property
    def inner(self) -> dict[str, Function]:
        """The functions defined directly in it."""
        return {
            node.name: Function(self.scope, node, None, self)
            for node in _nested(self.node)
        }


@dataclass(frozen=True, eq=False)
class Class:
    """A class that the project defines."""

    scope: Scope
    node: ast.ClassDef

    @cached_property
    def methods(self) -> dict[str, Function]:
        return {
            item.name: Function(self.scope, item, self)
            for item in self.node.body
            if isinstance(item, FunctionNode)
        }


@dataclass(frozen=True, eq=False)
class Scope:
    """The top level of a module."""

    module: Module
    index: Index = field(repr=False)

    @cached_property
    def imports(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for node in _top_level(self.module.tree.body):
            found |= _imports(node, self.module)
        return found

    @cached_property
    def functions(self) -> dict[str, Function]:
        return {
            node.name: Function(self, node)
            for node in _top_level(self.module.tree.body)
            if isinstance(node, FunctionNode)
        }

    @cached_property
    def classes(self) -> dict[str, Class]:
        return {
            node.name: Class(self, node)
            for node in _top_level(self.module.tree.body)
            if isinstance(node, ast.ClassDef)
        }

    @cached_property
    def assigned(self) -> dict[str, ast.expr]:
        """The values of the names that are assigned once."""
        found: dict[str, list[ast.expr]] = {}
        for node in _top_level(self.module.tree.body):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    found.setdefault(name, []).append(value)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    found.setdefault(name, []).append(value)
        return {name: values[0] for name, values in found.items() if len(values) == 1}

    def functions_with(self, word: str) -> Iterator[Function]:
        """Every function of the module, however deep, in whose text `word` occurs."""
        lines = self.module.lines
        pending = [*self.functions.values()]
        pending += [f for c in self.classes.values() for f in c.methods.values()]
        while pending:
            function = pending.pop()
            node = function.node
            if any(word in line for line in lines[node.lineno - 1 : node.end_lineno]):
                yield function
                pending += function.inner.values()


class Index:
    """Resolves names to dotted paths, and dotted paths to what the project defines."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self._scopes: dict[str, Scope | None] = {}

    def scope(self, module: Module) -> Scope:
        known = self._scopes.get(module.name)
        if known is None:
            known = self._scopes[module.name] = Scope(module, self)
        return known

    def dotted(self, node: ast.expr, function: Function) -> str | None:
        """The dotted path that a name or attribute stands for, if it is known.

        Builtins are `builtins.x`, names of the module itself `module.x`.
        """
        match node:
            case ast.Name(id=name):
                return self._name(name, function)
            case ast.Attribute(value=value, attr=attr):
                owner = self.dotted(value, function)
                return f"{owner}.{attr}" if owner else None
        return None

    def _name(self, name: str, function: Function) -> str | None:
        level: Function | None = function
        while level is not None:
            if name in level.imports:
                return level.imports[name]
            if name in level.bound or name in level.inner:
                return None
            level = level.outer
        scope = function.scope
        if name in scope.imports:
            return scope.imports[name]
        if name in scope.functions or name in scope.classes or name in scope.assigned:
            return f"{scope.module.name}.{name}"
        return f"builtins.{name}" if hasattr(builtins, name) else None

    def called(self, call: ast.Call, function: Function) -> Function | Class | None:
        """What of the project a call calls."""
        match call.func:
            case ast.Name(id=name):
                level: Function | None = function
                while level is not None:
                    if name in level.inner:
                        return level.inner[name]
                    level = level.outer
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=attr):
                owner = self._owner(function)
                return self.method(owner, attr) if owner else None
            case ast.Attribute(
                value=ast.Call(func=ast.Name(id="super"), args=[]), attr=attr
            ):
                owner = self._owner(function)
                for base in self.bases(owner) if owner else ():
                    if found := self.method(base, attr):
                        return found
                return None
        path = self.dotted(call.func, function)
        return self.defined(path) if path else None

    def _owner(self, function: Function) -> Class | None:
        level: Function | None = function
        while level is not None:
            if level.owner is not None:
                return level.owner
            level = level.outer
        return None

    def defined(self, path: str, hops: int = 0) -> Function | Class | None:
        """What the project defines under a dotted path, through re-exports."""
        if hops > MAX_HOPS or path.startswith("builtins."):
            return None
        parts = path.split(".")
        for end in range(len(parts) - 1, 0, -1):
            module = self.sources.named(".".join(parts[:end]))
            if module is None:
                continue
            scope, rest = self.scope(module), parts[end:]
            if rest[0] in scope.functions and len(rest) == 1:
                return scope.functions[rest[0]]
            if rest[0] in scope.classes:
                found = scope.classes[rest[0]]
                if len(rest) == 1:
                    return found
                return self.method(found, rest[1]) if len(rest) == 2 else None  # noqa: PLR2004
            if rest[0] in scope.imports:
                onward = ".".join([scope.imports[rest[0]], *rest[1:]])
                return self.defined(onward, hops + 1) if onward != path else None
            return None
        return None

    def method(self, owner: Class, name: str, hops: int = 0) -> Function | None:
        """A method, of the class itself or of a base in the project."""
        if name in owner.methods:
            return owner.methods[name]
        if hops < MAX_HOPS:
            for base in self.bases(owner):
                if found := self.method(base, name, hops + 1):
                    return found
        return None

    def bases(self, owner: Class) -> Iterator[Class]:
        """The direct bases that the project defines."""
        for path in self.base_paths(owner):
            found = self.defined(path)
            if isinstance(found, Class) and found is not owner:
                yield found

    def base_paths(self, owner: Class) -> Iterator[str]:
        """The dotted paths of the direct bases."""
        probe = Function(owner.scope, _EMPTY)
        for base in owner.node.bases:
            node = base.value if isinstance(base, ast.Subscript) else base
            if path := self.dotted(node, probe):
                yield path

    def ancestry(self, owner: Class, hops: int = 0) -> Iterator[str]:
        """The dotted paths of all bases, as far as the project's own code goes."""
        for path in self.base_paths(owner):
            yield path
            found = self.defined(path)
            if isinstance(found, Class) and hops < MAX_HOPS:
                yield from self.ancestry(found, hops + 1)


_EMPTY = cast("ast.FunctionDef", ast.parse("def _(): pass").body[0])


def _imports(node: ast.AST, module: Module) -> dict[str, str]:
    found: dict[str, str] = {}
    match node:
        case ast.Import(names=aliases):
            for alias in aliases:
                if alias.asname:
                    found[alias.asname] = alias.name
                else:
                    top = alias.name.partition(".")[0]
                    found[top] = top
        case ast.ImportFrom(names=aliases):
            source = imported_module(node, module.name, module.path)
            for alias in aliases if source else ():
                found[alias.asname or alias.name] = f"{source}.{alias.name}"
    return found


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module, those in `if` and `try` among them."""
    for node in body:
        yield node
        match node:
            case ast.If(body=then, orelse=other):
                yield from _top_level([*then, *other])
            case ast.Try(body=then, handlers=handlers, orelse=other, finalbody=last):
                yield from _top_level(then)
                for handler in handlers:
                    yield from _top_level(handler.body)
                yield from _top_level([*other, *last])
            case ast.With(body=then):
                yield from _top_level(then)


_LATER = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def _is_ruled_out(test: ast.expr, unset: Unset) -> bool:
    """Whether a condition is false while these parameters are at their defaults."""
    match test:
        case ast.Name(id=name):
            return any(name == other for other, _ in unset)
        case ast.Compare(
            left=ast.Name(id=name),
            ops=[ast.IsNot()],
            comparators=[ast.Constant(value=None)],
        ):
            return (name, True) in unset
        case ast.BoolOp(op=ast.And(), values=values):
            return any(_is_ruled_out(value, unset) for value in values)
    return False


def _executed(body: list[ast.stmt], unset: Unset = frozenset()) -> Iterator[ast.AST]:
    pending: list[ast.AST] = list(reversed(body))
    while pending:
        node = pending.pop()
        if isinstance(node, _LATER):
            continue
        yield node
        if isinstance(node, ast.GeneratorExp):
            pending.append(node.generators[0].iter)  # the rest waits for its consumer
        elif isinstance(node, ast.If) and (
            _is_typing(node.test) or _is_ruled_out(node.test, unset)
        ):
            pending += reversed(node.orelse)
        else:
            pending += reversed([*ast.iter_child_nodes(node)])


def _is_typing(test: ast.expr) -> bool:
    match test:
        case ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
            return True
    return False


def _nested(function: FunctionNode) -> Iterator[FunctionNode]:
    pending: list[ast.AST] = list(function.body)
    while pending:
        node = pending.pop()
        if isinstance(node, FunctionNode):
            yield node
        elif not isinstance(node, _LATER):
            pending += ast.iter_child_nodes(node)
