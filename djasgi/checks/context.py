"""What a check looks at, each part found when the first check asks for it."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from djasgi.callgraph.names import Index
from djasgi.callgraph.reach import Reached
from djasgi.checks.base import Place
from djasgi.deployments.launch import Deployments, Launch
from djasgi.deployments.launches import find
from djasgi.modules import imported_module, module_file
from djasgi.plan import LaunchPlan
from djasgi.source import statements
from djasgi.sources import Module, Sources
from djasgi.tree import up_to_repository


class Answer(Protocol):
    """What a running worker answered."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...


class Served(Protocol):
    """The plan's application in a running worker (`--probe`)."""

    @property
    def failure(self) -> str:
        """Why it does not run; empty if it does."""

    def get(self, path: str, headers: Mapping[str, str]) -> Answer | None:
        """The answer to a GET, or None when there was none."""

    def websocket(self, path: str, headers: Mapping[str, str]) -> int | None:
        """The status that a websocket handshake was answered with."""


@dataclass
class Context:
    """The plan, and whatever of the project could be found, loaded and started."""

    plan: LaunchPlan | None = None  # None: run by Django's own check command
    deploy: bool = False
    settings: Any = None  # Django's, once the project is loaded
    application: Any = None
    load_seconds: float = 0.0
    served: Served | None = None
    inherited: Mapping[str, str] = field(default_factory=dict)  # before the plan's
    settings_module: str | None = None
    on_the_loop: tuple[Index, list[Reached]] | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The import roots."""
        if self.plan is not None:
            return self.plan.paths
        base = getattr(self.settings, "BASE_DIR", None)
        return (Path(base),) if base else (Path.cwd(),)

    @cached_property
    def sources(self) -> Sources:
        return Sources([path for path in self.paths if path.is_dir()])

    @cached_property
    def deployments(self) -> Deployments:
        return find(self.plan.path) if self.plan else Deployments()

    @cached_property
    def launches(self) -> tuple[Launch, ...]:
        """The launches of this project, among those of its repository."""
        return tuple(x for x in self.deployments.launches if self._is_ours(x))

    def native(self) -> Iterator[Launch]:
        """The launches that start a native ASGI server."""
        return (launch for launch in self.launches if launch.native and launch.asgi)

    def _is_ours(self, launch: Launch) -> bool:
        """Whether a file launches this project: a repository may hold others."""
        if launch.server.name in ("djasgi", "runserver"):
            return True
        module = (launch.server.target or "").partition(":")[0]
        target = self.plan.application.target if self.plan else None
        if target is not None and target.module and module == target.module:
            return True
        if not module or "$" in module:
            return False
        last = module.rpartition(".")[2]
        return last in ("asgi", "wsgi") and bool(module_file(module, self.paths))

    @cached_property
    def several_workers(self) -> tuple[str, Place | None] | None:
        """What starts more than one worker, for a sentence; None if nothing does."""
        if self.plan is not None:
            value = self.plan.values["workers"]
            if value.value == "auto":
                return f"--workers auto ({value.origin}) may start several", None
            if value.value > 1:
                return f"{value.value} workers ({value.origin})", None
        for launch in self.launches:
            if (launch.workers or 0) > 1:
                place = self.launch_place(launch)
                where = f"{self.shown(launch.file)}:{launch.line}"
                return f"{launch.workers} workers ({where})", place
        return None

    def variable(self, name: str) -> str | None:
        """An environment variable as the project would see it."""
        if self.plan is not None and name in self.plan.variables:
            return str(self.plan.variables[name].value)
        return (self.inherited or os.environ).get(name)

    @property
    def repository(self) -> Path:
        """The folder by which paths are shown to tools."""
        return up_to_repository(self.paths[0])[-1]

    def shown(self, path: Path) -> str:
        """A path for people: relative to the import root or the repository."""
        for base in (*self.paths, self.repository):
            if path.is_relative_to(base):
                return str(path.relative_to(base))
        return str(path)

    # Places

    def launch_place(self, launch: Launch) -> Place:
        return Place(launch.file, launch.line, " ".join(launch.source.split()))

    def module_place(self, module: Module, node: ast.AST, inside: str = "") -> Place:
        line = int(getattr(node, "lineno", 0))
        source = module.lines[line - 1].strip() if line else ""
        return Place(module.path, line, source, inside)

    def setting(self, name: str, *constants: object) -> Place | None:
        """Where a setting is set; the line with one of `constants`, if it is there."""
        chosen: Place | None = None
        for module in self._settings_modules:
            for node, guard in statements(module.tree):
                if guard.testing or not _sets(node, name):
                    continue
                exact = _constant(node, constants) if constants else node
                if exact is not None:
                    return self.module_place(module, exact)
                chosen = chosen or self.module_place(module, node)
        if chosen is None and self._settings_modules:
            return Place(self._settings_modules[0].path)
        return chosen

    @cached_property
    def _settings_modules(self) -> list[Module]:
        """The settings module and those of the project that it imports whole."""
        name = self.settings_module
        if name is None and self.plan is not None and self.plan.settings:
            name = self.plan.settings.value
        found: list[Module] = []
        pending = [name] if name else []
        while pending and len(found) < MAX_SETTINGS:
            module = self.sources.named(pending.pop(0))
            if module is None or module in found:
                continue
            found.append(module)
            pending += _star_imports(module)
        return found


MAX_SETTINGS = 64  # modules that settings are put together from


def _star_imports(module: Module) -> list[str]:
    return [
        source
        for node, _ in statements(module.tree)
        if isinstance(node, ast.ImportFrom)
        and node.names[0].name == "*"
        and (source := imported_module(node, module.name, module.path))
    ]


def _sets(node: ast.stmt, name: str) -> bool:
    match node:
        case ast.Assign(targets=targets):
            return any(_root(target) == name for target in targets)
        case ast.AnnAssign(target=target, value=ast.expr()):
            return _root(target) == name
        case ast.AugAssign(target=target):
            return _root(target) == name
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=owner))):
            return _root(owner) == name  # MIDDLEWARE.insert(…), CACHES.update(…)
    return False


def _root(node: ast.expr) -> str | None:
    while isinstance(node, ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _constant(node: ast.AST, constants: Sequence[object]) -> ast.AST | None:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and part.value in constants:
            return part
    return None
