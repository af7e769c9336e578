"""The project's own Python files, parsed when they are asked for."""

from __future__ import annotations

import ast
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from djasgi.modules import module_file
from djasgi.source import MAX_SOURCE, is_file
from djasgi.tree import is_inside, own_folders

MAX_FILES = 50_000
MAX_PARSED = 64 * 1024 * 1024
"""Bytes of source whose trees are kept; a tree takes some 25 times as much."""

_TEST_FOLDERS = {"tests", "test", "testing", "migrations", "e2e", "fixtures"}
_TEST_FILES = re.compile(
    r"(test_.*|.*_tests?|tests?|conftest|factories|noxfile|setup)\.py"
)


@dataclass(frozen=True, slots=True)
class Module:
    """One file as a module."""

    name: str
    path: Path
    tree: ast.Module
    lines: tuple[str, ...]


class Sources:
    """The Python files below the import roots, without those of tests and migrations.

    Each is read once, and parsed only when somebody wants its tree. What cannot be read
    or parsed is in `skipped`, with the reason.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = tuple(roots)
        self.skipped: dict[Path, str] = {}
        self._bytes: dict[Path, bytes] | None = None
        self._modules: dict[Path, Module | None] = {}
        self._names: dict[str, Module | None] = {}
        self._parsed = 0

    def containing(self, *words: bytes) -> Iterator[Module]:
        """The modules in whose text one of these words occurs."""
        for path, data in self._all().items():
            if any(word in data for word in words) and (found := self.module(path)):
                yield found

    def mention(self, word: bytes) -> bool:
        """Whether any file has `word` in it."""
        return any(word in data for data in self._all().values())

    def module(self, path: Path) -> Module | None:
        """The module of a file, or None if it is not Python."""
        if path not in self._modules:
            self._modules[path] = self._parse(path)
        return self._modules[path]

    def named(self, name: str) -> Module | None:
        """The project's module of this dotted name, if there is one."""
        if name not in self._names:
            path = module_file(name, self.roots)
            self._names[name] = self.module(path) if path else None
        return self._names[name]

    def name_of(self, path: Path) -> str:
        """The dotted name by which a file is imported."""
        roots = [root for root in self.roots if path.is_relative_to(root)]
        root = max(roots, key=lambda r: len(r.parts), default=path.parent)
        parts = list(path.relative_to(root).with_suffix("").parts)
        return ".".join(parts[:-1] if parts[-1:] == ["__init__"] else parts)

    def _all(self) -> dict[Path, bytes]:
        if self._bytes is None:
            self._bytes = {}
            for path in self._paths():
                if len(self._bytes) >= MAX_FILES:
                    self.skipped[path] = f"more than {MAX_FILES} files"
                    break
                data = self._read(path)
                if data is not None:
                    self._bytes[path] = data
        return self._bytes

    def _paths(self) -> Iterator[Path]:
        seen: set[Path] = set()
        for root in self.roots:
            pending = [root]
            while pending:
                folder = pending.pop()
                if folder in seen:
                    continue
                seen.add(folder)
                yield from _python_files(folder, root)
                pending += [
                    inner
                    for inner in reversed(own_folders(folder, root))
                    if inner.name not in _TEST_FOLDERS and not inner.is_symlink()
                ]

    def _read(self, path: Path) -> bytes | None:
        try:
            with path.open("rb") as file:
                data = file.read(MAX_SOURCE + 1)
        except OSError as error:
            self.skipped[path] = f"cannot be read: {error.strerror}"
            return None
        if len(data) > MAX_SOURCE:
            self.skipped[path] = "too large"
            return None
        return data

    def _parse(self, path: Path) -> Module | None:
        data = (self._bytes or {}).get(path)
        if data is None:
            data = self._read(path) if is_file(path) else None
        if data is None:
            return None
        self._parsed += len(data)
        if self._parsed > MAX_PARSED:
            self.skipped[path] = "too much source in all"
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(data)
        except SyntaxError as error:
            where = f" (line {error.lineno})" if error.lineno else ""
            self.skipped[path] = f"not valid Python{where}"
        except (ValueError, RecursionError, MemoryError):
            self.skipped[path] = "not valid Python"
        else:
            text = data.decode("utf-8", "replace")
            lines = tuple(text.split("\n"))
            return Module(self.name_of(path), path, tree, lines)
        return None


def _python_files(folder: Path, root: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(
                (entry.name, entry.is_symlink())
                for entry in entries
                if entry.name.endswith(".py")
            )
    except OSError:
        return
    for name, link in names:
        path = folder / name
        if _TEST_FILES.fullmatch(name) or (link and not is_inside(path, root)):
            continue
        if is_file(path):
            yield path
