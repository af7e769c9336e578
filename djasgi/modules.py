"""Modules by their dotted names, found and read without importing them."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Sequence
from pathlib import Path

from djasgi.frozen import Frozen
from djasgi.source import bound_names, is_file, is_folder, parse, statements, text


def packages(name: str, roots: Sequence[Path]) -> list[Path]:
    """The folders of the package `name` ("": the roots), as the import system finds them.

    More than one for a namespace package; none if there is no such package.
    """
    folders = list(roots)
    for part in name.split(".") if name else ():
        portions: list[Path] = []
        for folder in folders if part.isidentifier() else ():
            if is_file(folder / part / "__init__.py"):
                portions = [folder / part]
                break
            if is_file(folder / f"{part}.py"):
                return []
            if is_folder(folder / part):
                portions.append(folder / part)
        folders = portions
    return folders


def module_file(name: str, roots: Sequence[Path]) -> Path | None:
    """The file of the module `name`: x.py or x/__init__.py.

    None if there is none: not found, a namespace package, not a module's name.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        return None
    parent, _, last = name.rpartition(".")
    for folder in packages(parent, roots):
        for file in (folder / last / "__init__.py", folder / f"{last}.py"):
            if is_file(file):
                return file
    return None


def is_surely_missing(name: str, roots: Sequence[Path]) -> bool:
    """Whether there is no module `name` in a package of the project that should have it.

    What is not the project's own, or not written in Python, may be found at the import.
    """
    if module_file(name.partition(".")[0], roots) is None or packages(name, roots):
        return False
    parent, _, last = name.rpartition(".")
    try:
        entries = [
            file for folder in packages(parent, roots) for file in folder.iterdir()
        ]
    except OSError:
        return False
    return not any(entry.name.startswith(f"{last}.") for entry in entries)


def imported_module(node: ast.ImportFrom, module: str, file: Path) -> str | None:
    """The absolute name of what `from … import` imports from, inside `module`."""
    if not node.level:
        return node.module
    parts = module.split(".")
    up = node.level - (file.name == "__init__.py")
    if up >= len(parts):
        return None
    inner = [node.module] if node.module else []
    return ".".join([*parts[: len(parts) - up], *inner])


def star_imports(module: str, file: Path) -> list[str]:
    """The modules from which the top level of a file imports everything."""
    tree = parse(file)
    return [
        source
        for node, guard in (statements(tree) if tree else ())
        if isinstance(node, ast.ImportFrom)
        and not guard.nested
        and node.names[0].name == "*"
        and (source := imported_module(node, module, file))
    ]


class Assigned(Frozen):
    """What a module's name is set to, and where."""

    value: str | None  # None: computed
    file: Path
    line: int


class Lookup:
    """Finds what names are set to, following imports inside `roots`.

    Reads at most `MAX_MODULES` files; what lies beyond counts as not set.
    """

    MAX_MODULES = 64

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots = roots
        self._seen: dict[tuple[str, str], Assigned | None] = {}

    def find(self, module: str, name: str) -> Assigned | None:
        """The last assignment to `name` at the top level of `module`, if any."""
        key = module, name
        if key in self._seen or len(self._seen) >= self.MAX_MODULES:
            return self._seen.get(key)
        self._seen[key] = None  # modules that import each other end here
        file = module_file(module, self._roots)
        tree = parse(file) if file else None
        if file is None or tree is None:
            return None
        for node, guard in statements(tree):
            if not guard.nested and not guard.testing:
                found = self._set(node, name, module, file)
                self._seen[key] = found or self._seen[key]
        return self._seen[key]

    def _set(
        self, node: ast.stmt, name: str, module: str, file: Path
    ) -> Assigned | None:
        match node:
            case ast.ImportFrom():
                return self._imported(node, name, module, file)
            case (
                ast.Assign(targets=[ast.Name(id=target)], value=value)
                | ast.AnnAssign(target=ast.Name(id=target), value=ast.expr() as value)
            ) if target == name:
                return Assigned(text(value), file, node.lineno)
        return Assigned(None, file, node.lineno) if name in bound_names(node) else None

    def _imported(
        self, node: ast.ImportFrom, name: str, module: str, file: Path
    ) -> Assigned | None:
        source = imported_module(node, module, file)
        for alias in node.names:
            if alias.name == "*":
                return self.find(source, name) if source else None
            if (alias.asname or alias.name) == name:
                unknown = Assigned(None, file, node.lineno)
                return (self.find(source, alias.name) if source else None) or unknown
        return None


_NOT_AN_ENVIRONMENT = {
    *("__init__", "base", "common", "defaults", "default", "components", "shared"),
    *("asgi", "wsgi", "urls", "celery", "routing", "utils"),
}


def settings_siblings(default: str, roots: Sequence[Path]) -> list[str]:
    """The settings modules of the environments, found beside the `default` one.

    In a settings package its modules, the default included; of a flat settings.py the
    modules named settings_x.py and x_settings.py. Parts that the default one imports
    whole are not settings of their own.
    """
    inside = packages(default, roots)
    file = module_file(default, roots)
    package = default if inside else default.rpartition(".")[0]
    folders = inside or packages(package, roots)
    parts = set(star_imports(default, file)) if file and not inside else set()
    flat = not inside and "settings" in default.rpartition(".")[2].split("_")
    if not inside and not flat and not package:
        return []
    names = {
        name
        for name in module_names(folders)
        if (word := _environment_of(name) if flat else name)
        and word not in _NOT_AN_ENVIRONMENT
    }
    found = (f"{package}.{name}" if package else name for name in sorted(names))
    return [module for module in found if module not in parts]


def _environment_of(name: str) -> str | None:
    """The x of settings_x and x_settings."""
    match = re.fullmatch(r"settings_(.+)|(.+)_settings", name)
    return (match[1] or match[2]) if match else None


def module_names(folders: Sequence[Path]) -> set[str]:
    """The modules directly in these folders; packages are not among them."""
    names: set[str] = set()
    for folder in folders:
        try:
            with os.scandir(folder) as entries:
                files = [entry.name for entry in entries if entry.name[-3:] == ".py"]
        except (OSError, ValueError):
            continue
        names.update(
            name[:-3]
            for name in files
            if name[:-3].isidentifier() and is_file(folder / name)
        )
    return names
