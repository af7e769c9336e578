"""How often a request goes to a thread and back, read from the project without running it.

Under Django's handler each hook of each middleware is a hop, and so are request_started,
a synchronous view, and closing the response.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Sequence
from pathlib import Path

from djasgi.modules import Lookup, module_file
from djasgi.source import parse, text

FUSED = 1
"""Hops under djasgi's handler, when every middleware is of the kind that is read here."""

AROUND = 3
"""request_started, the view, closing the response."""

HOOKS = {"process_request", "process_view", "process_response"}
"""Those that each request goes through."""

MIXIN = "django.utils.deprecation.MiddlewareMixin"


def of_django(settings: str, path: Sequence[Path | str]) -> int | None:
    """The hops of a request for a synchronous view under Django's own handler.

    None if that cannot be read: MIDDLEWARE is computed, or one of them is not made of
    hooks alone.
    """
    roots = [Path(folder or os.curdir) for folder in path]
    names = _middleware(settings, roots)
    if names is None:
        return None
    counts = [_hooks(name, roots) for name in names]
    if None in counts:
        return None
    return AROUND + sum(count for count in counts if count)


def _middleware(settings: str, roots: Sequence[Path]) -> list[str] | None:
    """The literal MIDDLEWARE, if it is set once and never changed."""
    found = Lookup(roots).find(settings, "MIDDLEWARE")
    if found is None:
        return None
    own = module_file(settings, roots)
    trees = [parse(file) for file in {found.file, own} if file]
    mentions = [
        node
        for tree in trees
        if tree
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == "MIDDLEWARE"
    ]
    if len(mentions) != 1:
        return None
    for tree in trees:
        for node in tree.body if tree else ():
            match node:
                case ast.Assign(
                    targets=[ast.Name(id="MIDDLEWARE")],
                    value=ast.List(elts=items) | ast.Tuple(elts=items),
                ):
                    names = [text(item) for item in items]
                    known = [name for name in names if name is not None]
                    return known if len(known) == len(names) else None
    return None


def _hooks(name: str, roots: Sequence[Path]) -> int | None:
    """The hooks of the middleware `name`, or None if it is more than hooks."""
    module, _, attribute = name.rpartition(".")
    file = module_file(module, roots)
    tree = parse(file) if file else None
    if tree is None:
        return None
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if not _imports_mixin(tree):
        return None
    defined = _defined(attribute, classes, depth=8)
    if defined is None or defined & {"__call__", "__acall__", "async_capable"}:
        return None
    return len(defined & HOOKS)


def _imports_mixin(tree: ast.Module) -> bool:
    module, _, name = MIXIN.rpartition(".")
    return any(
        isinstance(node, ast.ImportFrom)
        and node.module == module
        and any(alias.name == name and not alias.asname for alias in node.names)
        for node in tree.body
    )


def _defined(
    name: str, classes: dict[str, ast.ClassDef], depth: int
) -> set[str] | None:
    """What a class and its bases in the same file define, down to MiddlewareMixin."""
    if name == MIXIN.rpartition(".")[2]:
        return set()
    if name not in classes or not depth:
        return None
    found: set[str] = set()
    for base in classes[name].bases or [ast.Name("object")]:
        if not isinstance(base, ast.Name):
            return None
        inherited = _defined(base.id, classes, depth - 1)
        if inherited is None:
            return None
        found |= inherited
    for node in classes[name].body:
        match node:
            case ast.FunctionDef(name=method):
                found.add(method)
            case ast.AsyncFunctionDef():
                return None
            case ast.Assign(targets=targets):
                found |= {t.id for t in targets if isinstance(t, ast.Name)}
    return found
