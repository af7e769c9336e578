"""The project, found in its files: import root, settings defaults, application.

Static: files are listed and parsed, none is imported or run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from djasgi.entryfile import environment, path_insertions
from djasgi.errors import ProjectError, nearest
from djasgi.frozen import Frozen
from djasgi.modules import Lookup, module_file, settings_siblings
from djasgi.source import (
    MAX_SOURCE,
    definitions,
    enumerated,
    is_file,
    is_folder,
    parse,
    shown,
)
from djasgi.target import Target, parse_target
from djasgi.tree import is_inside, own_folders, require_readable, up_to_repository

__all__ = [
    "Application",
    "Found",
    "Manage",
    "Rejected",
    "Root",
    "Target",
    "defined_names",
    "find_application",
    "find_root",
    "literal",
    "module_file",
    "parse_target",
    "read_manage",
    "settings_default",
    "settings_siblings",
]

_SETTINGS = "DJANGO_SETTINGS_MODULE"


class Found(Frozen):
    """A literal, and where it stands."""

    value: str
    origin: str  # "manage.py:9", relative to the import root


class Manage(Frozen):
    """What manage.py says."""

    path: Path
    settings: Found | None
    assigned: bool  # it assigns the settings, so nothing else can win
    variables: dict[str, Found]  # the other environment variables it sets to literals
    paths: tuple[Path, ...]  # what it adds to sys.path


class Root(Frozen):
    """The import root."""

    path: Path
    origin: str  # "manage.py", "--project", "working directory"
    manage: Manage | None

    @property
    def search_path(self) -> tuple[Path, ...]:
        """The root, and what manage.py adds to `sys.path`."""
        return (self.path, *(self.manage.paths if self.manage else ()))


class Rejected(Frozen):
    """An asgi.py that was seen and not taken."""

    path: str  # relative to the import root
    reason: str


class Application(Frozen):
    """The ASGI application, as an import target."""

    target: Target | None  # None: Django's get_asgi_application(), synthesised
    origin: str  # "argument", "pyproject.toml:14", "config/asgi.py:22", "synthesised"
    settings: Found | None  # the settings default of that module itself
    rejected: tuple[Rejected, ...] = ()


def find_root(cwd: Path, explicit: Path | None) -> Root | None:
    """The import root: the folder of manage.py, or `explicit` (from `--project`).

    Looks in `cwd`, in its parents up to the repository's root, then in the sub-folders
    (one level, and src/backend) of each of these. None if there is no manage.py.
    Raises ProjectError for a folder that cannot be read or entered, and for several
    manage.py side by side.
    """
    cwd = cwd.absolute()
    if explicit is not None:
        folder = cwd / explicit
        return _explicit_root(folder.resolve() if ".." in folder.parts else folder)
    require_readable(
        cwd, "Change to a folder that you can read, or give one: --project DIR"
    )
    bases = up_to_repository(cwd)
    tree = bases[-1]
    for base in bases:
        if manage := _manage_in(base, tree):
            return _root(manage)
    for base in bases:
        folders = [*own_folders(base, tree), base / "src" / "backend"]
        found = _projects(folders, tree)
        if len(found) > 1:
            raise _several_projects(found, cwd)
        if found:
            return _root(found[0])
    return None


def _root(manage: Path) -> Root:
    return Root(manage.parent, "manage.py", read_manage(manage))


def _explicit_root(folder: Path) -> Root:
    if is_file(folder):
        raise ProjectError(
            f"--project {shown(folder)} is a file.",
            hint=f"Give its folder: --project {shown(folder.parent)}",
        )
    hint = "Give --project a folder that you can read."
    if not is_folder(folder):
        others = [path.name for path in own_folders(folder.parent)]
        if other := nearest(folder.name, others):
            hint = f"Did you mean {shown(folder.parent / other)}?"
    require_readable(folder, hint)
    manage = _manage_in(folder, up_to_repository(folder)[-1])
    if manage is None:
        return Root(folder, "--project", None)
    return Root(manage.parent, "--project", read_manage(manage))


def _manage_in(folder: Path, tree: Path) -> Path | None:
    """Django's manage.py of this folder: not another tool's, not one outside `tree`."""
    manage = folder / "manage.py"
    if not is_file(manage) or not is_inside(manage, tree):
        return None
    if manage.is_symlink():
        manage = manage.resolve()  # Python puts the folder of the real script first
    try:
        with manage.open("rb") as file:
            return manage if b"django" in file.read(MAX_SOURCE).lower() else None
    except OSError as error:
        raise ProjectError(
            f"{shown(manage)} cannot be read: {error.strerror}.",
            hint="Make it readable, or choose another project with --project DIR.",
        ) from None


def _projects(folders: Sequence[Path], tree: Path) -> list[Path]:
    """The manage.py of these folders: each once, by its own name rather than a link's."""
    found: dict[Path, Path] = {}
    for folder in sorted(folders, key=Path.is_symlink):
        if manage := _manage_in(folder, tree):
            found.setdefault(manage.resolve(), manage)
    return sorted(found.values(), key=lambda manage: (len(manage.parts), manage))


def _several_projects(found: Sequence[Path], cwd: Path) -> ProjectError:
    listed = [_relative(manage, cwd) for manage in found]
    first = _relative(found[0].parent, cwd)
    return ProjectError(
        f"There are several projects: {enumerated(listed)}.",
        hint=f"Choose one with --project DIR, for example --project {first}",
    )


def read_manage(path: Path) -> Manage:
    """What a manage.py says, without running it; nothing, if it is not valid Python."""
    root = path.parent
    tree = parse(path)
    if tree is None:
        return Manage(path, None, assigned=False, variables={}, paths=())
    variables = environment(tree)
    found = {
        name: Found(variable.value, _origin(path, root, variable.line))
        for name, variable in variables.items()
        if variable.value is not None
    }
    settings = found.pop(_SETTINGS, None)
    assigned = settings is not None and variables[_SETTINGS].assigned
    return Manage(path, settings, assigned, found, path_insertions(tree, path))


def settings_default(path: Path, root: Path) -> tuple[Found | None, bool]:
    """The settings module that a file sets as default, and whether it assigns it."""
    tree = parse(path)
    variable = environment(tree).get(_SETTINGS) if tree else None
    if variable is None or variable.value is None:
        return None, False
    return Found(variable.value, _origin(path, root, variable.line)), variable.assigned


def defined_names(path: Path) -> list[str]:
    """The public names that a file defines at its top level, in their order."""
    tree = parse(path)
    names = definitions(tree) if tree else {}
    return [name for name in names if name.isidentifier() and name[0] != "_"]


class _Candidate(Frozen):
    module: str
    attribute: str | None
    origin: str
    path: str
    settings: Found | None


def find_application(
    root: Path, paths: Sequence[Path], settings: str | None
) -> Application:
    """The asgi.py (or asgi package) that belongs to the settings module `settings`.

    Looks at the top of the import root and of `paths`, in their first-level packages,
    and beside the settings. Raises ProjectError if several fit equally well.
    """
    fitting: list[_Candidate] = []
    rejected: list[Rejected] = []
    for module, path in _asgi_files(root, paths, settings):
        top = path in (root / "asgi.py", root / "asgi" / "__init__.py")
        seen = _examine(module, path, root, settings, top=top)
        if isinstance(seen, Rejected):
            rejected.append(seen)
        else:
            fitting.append(seen)
    if not fitting:
        return Application(None, "synthesised", None, tuple(rejected))
    best, passed_over = _best(fitting, settings)
    target = Target(best.module, None, best.attribute, call=False)
    return Application(target, best.origin, best.settings, (*rejected, *passed_over))


def _asgi_files(
    root: Path, paths: Sequence[Path], settings: str | None
) -> Iterator[tuple[str, Path]]:
    seen: set[Path] = set()
    for base in (root, *paths):
        tree = up_to_repository(base)[-1]
        modules = [
            "asgi",
            *(f"{folder.name}.asgi" for folder in own_folders(base, tree)),
        ]
        parts = settings.split(".") if settings else []
        modules += [f"{'.'.join(parts[:n])}.asgi" for n in range(2, len(parts) + 1)]
        for module in modules:
            path = module_file(module, [base])
            if path and path not in seen and is_inside(path, tree):
                seen.add(path)
                yield module, path


def _examine(
    module: str, path: Path, root: Path, settings: str | None, *, top: bool
) -> _Candidate | Rejected:
    place = _relative(path, root)
    own, _ = settings_default(path, root)
    if own and settings and _package(own.value) != _package(settings):
        return Rejected(place, f"it belongs to {own.value}")
    if not own and settings and not top and _package(module) != _package(settings):
        return Rejected(
            place, f"it names no settings and is not in {_package(settings)}"
        )
    tree = parse(path)
    if tree is None:
        # The import will say what is wrong with it, better than we can.
        return _Candidate(module, None, place, place, None)
    names = definitions(tree)
    for attribute in ("application", "app", "*"):
        if attribute in names:
            known = None if attribute == "*" else attribute
            origin = _origin(path, root, names[attribute])
            return _Candidate(module, known, origin, place, own)
    return Rejected(place, "it defines neither application nor app")


def _best(
    fitting: Sequence[_Candidate], settings: str | None
) -> tuple[_Candidate, list[Rejected]]:
    """The one to take, and the others with the reason why not."""
    preferences: list[tuple[str, Callable[[_Candidate], bool]]] = [
        ("is in the settings' package", lambda c: _shares_package(c.module, settings)),
        ("is at the top level", lambda c: "." not in c.module),
        (
            "names exactly these settings",
            lambda c: c.settings is not None and c.settings.value == settings,
        ),
    ]
    left = list(fitting)
    passed_over: list[tuple[_Candidate, str]] = []
    for reason, prefers in preferences:
        preferred = [candidate for candidate in left if prefers(candidate)]
        if preferred:
            passed_over += [(c, reason) for c in left if c not in preferred]
            left = preferred
    if len(left) > 1:
        raise ProjectError(
            f"Several ASGI applications fit: {enumerated([c.path for c in left])}.",
            hint=f"Choose one: djasgi serve {left[0].module}",
        )
    return left[0], [
        Rejected(candidate.path, f"{left[0].module} {reason}")
        for candidate, reason in passed_over
    ]


def _package(module: str) -> str:
    return module.partition(".")[0]


def _shares_package(module: str, settings: str | None) -> bool:
    return settings is not None and _package(module) == _package(settings)


def literal(module: str, name: str, roots: Sequence[Path]) -> Found | None:
    """The literal string that `module` sets `name` to, as the last assignment.

    Follows star imports and imports of that name inside `roots`. None if it is not set
    there, or computed. The origin is relative to the first root.
    """
    found = Lookup(roots).find(module, name)
    if found is None or found.value is None:
        return None
    return Found(found.value, _origin(found.file, roots[0], found.line))


def _origin(path: Path, root: Path, line: int) -> str:
    return f"{_relative(path, root)}:{line}"


def _relative(path: Path, root: Path) -> str:
    return shown(os.path.relpath(path, root))
