"""What the user's code raised while it was loaded, told for people.

What is wrong, where to look, and the user's own traceback: without the frames of
djasgi and of the import system, and without Django's where they only lead from one
file of the project to the next.
"""

from __future__ import annotations

import ast
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from errno import EACCES, EMFILE, ENFILE
from pathlib import Path
from typing import Any

from djasgi.discovery import module_file, settings_siblings
from djasgi.errors import DjasgiError, ProjectError, UsageError, nearest
from djasgi.modules import packages
from djasgi.plan import LaunchPlan
from djasgi.source import enumerated, is_folder, shown

HERE = str(Path(__file__).parent) + os.sep
IMPORT_SYSTEM = ("<frozen ", str(Path(os.__file__).parent / "importlib") + os.sep)


@contextmanager
def explained(plan: LaunchPlan) -> Iterator[None]:
    """Tell what the user's code raises in here as a failure of the project.

    Three things stay as they are: a DjasgiError, what djasgi's own code raises, and the
    lack of file descriptors, which is not the project's fault.
    """
    try:
        yield
    except BaseException as error:
        if isinstance(error, DjasgiError) or _is_ours(error):
            raise
        if any(map(_is_exhaustion, _chain(error))):
            raise OSError(EMFILE, os.strerror(EMFILE)) from error
        raise explain(plan, error) from None


def explain(plan: LaunchPlan, error: BaseException) -> DjasgiError:
    """The error for people: what is missing, or the user's own traceback."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        missing = _missing(plan, error.name)
        if missing is not None:
            return missing
    if (file := _unreadable_source(error)) is not None:
        return _unreadable(plan, file, error)
    setting = _setting_at_fault(plan, error)
    details = "" if setting else user_traceback(error)
    where = setting or place(error, plan)
    where = where or ("the traceback above" if details else shown(plan.path))
    return ProjectError(
        f"The project does not load: {_summary(error)}",
        hint=f"Look at {where}.{_advice(plan, error)}",
        details=details,
    )


def missing_settings(plan: LaunchPlan, name: str, origin: str) -> ProjectError:
    """The error when the settings module `name` does not exist."""
    if folder := _closed_folder(name, plan.paths):
        return _unreadable(plan, folder)
    manage = plan.root.manage
    defaults = [plan.application.settings, manage.settings if manage else None]
    known = settings_siblings(name, plan.paths)
    known += [default.value for default in defaults if default]
    known = [module for module in known if module != name]
    guess = nearest(name, known) or corrected(dotted(name), plan.paths)
    if guess:
        hint = f"Did you mean {guess}?"
    elif known:
        hint = f"Name an existing one with --settings: {enumerated(sorted(set(known)))}"
    else:
        hint = "Name an existing one with --settings."
    return ProjectError(
        f"The settings module {shown(name)} ({origin}) does not exist.", hint=hint
    )


def missing_module(
    plan: LaunchPlan, module: str, use: str, suffix: str
) -> ProjectError:
    """The error when `module` does not exist; `suffix` is what follows it in `use`."""
    if folder := _closed_folder(module, plan.paths):
        return _unreadable(plan, folder)
    return ProjectError(
        f"There is no module {module}{use}.",
        hint=_module_hint(plan, module, suffix),
    )


def overridden_settings(plan: LaunchPlan, actual: str) -> UsageError:
    """The error when the project itself has set other settings than the planned."""
    planned = plan.settings
    expected = f"{planned.value} ({planned.origin})" if planned else "the planned ones"
    return UsageError(
        f"The settings in force are {actual}, not {expected}.",
        hint=f"{_assignment(plan)} sets DJANGO_SETTINGS_MODULE, whatever was asked for: "
        "use os.environ.setdefault() there.",
    )


def corrected(module: str, paths: Sequence[Path]) -> str | None:
    """The existing module whose dotted name is nearest, part by part, to `module`."""
    found = ""
    for part in module.split("."):
        known = _submodules(packages(found, paths))
        match = part if part in known else nearest(part, sorted(known))
        if match is None:
            return None
        found = f"{found}.{match}" if found else match
    return found


def dotted(text: str) -> str:
    """`text` as a module's name, if it was written as a path."""
    return text.removesuffix(".py").replace("/", ".").strip(".")


def is_or_contains(name: str, module: str) -> bool:
    """Whether `name` is `module`, or a package that it is in."""
    return module == name or module.startswith(f"{name}.")


def settings_in_force() -> Any:
    """Django's settings if the project uses them, without loading anything anew."""
    conf = sys.modules.get("django.conf")
    if conf is None:
        return None
    settings = conf.settings
    return settings if settings.configured else None


def user_traceback(error: BaseException) -> str:
    """The traceback of the user's own code; nothing, if none of it took part."""
    summary = traceback.TracebackException.from_exception(error)
    pending: list[traceback.TracebackException | None] = [summary]
    while pending:
        current = pending.pop()
        if current is not None:
            in_text = hasattr(current, "text")  # a SyntaxError: its place is no frame
            own = _own(current.stack, in_text=in_text)
            current.stack = traceback.StackSummary.from_list(own)
            pending += [current.__cause__, current.__context__]
            pending += current.exceptions or ()
    told = summary.stack or summary.__cause__ or summary.__context__
    if not told and not isinstance(error, SyntaxError):
        return ""
    return "".join(summary.format()).rstrip()


def place(error: BaseException, plan: LaunchPlan) -> str:
    """The innermost place in the project that the failure came through, file:line."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        file = Path(error.filename)
        if _inside(file, plan.path):
            return f"{path_shown(file, plan.path)}:{error.lineno}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if _inside(file, plan.path):
            return f"{path_shown(file, plan.path)}:{frame.lineno}"
    return ""


def path_shown(path: Path, root: Path) -> str:
    """A path for people: relative to the project where it is in it."""
    return shown(path.relative_to(root) if path.is_relative_to(root) else path)


def _missing(plan: LaunchPlan, name: str) -> DjasgiError | None:
    """The error when it is a planned module itself that does not exist."""
    settings = plan.settings
    actual = os.environ.get("DJANGO_SETTINGS_MODULE", "")
    if settings is not None and is_or_contains(name, settings.value):
        return missing_settings(plan, settings.value, settings.origin)
    if settings is not None and actual != settings.value and name == actual:
        return overridden_settings(plan, actual)
    target = plan.application.target
    if target is not None and target.module and is_or_contains(name, target.module):
        origin = plan.application.origin
        use = "" if origin == "argument" else f" ({origin})"
        suffix = str(target).removeprefix(target.module)
        return missing_module(plan, target.module, use, suffix)
    return None


def _unreadable_source(error: BaseException) -> Path | None:
    """The file of a module that may not be read, if that is what the error is about."""
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    at_import = bool(frames) and frames[-1].filename.startswith("<frozen importlib")
    if at_import and isinstance(error, PermissionError) and error.filename:
        return Path(os.fsdecode(error.filename))
    return None


def _closed_folder(module: str, paths: Sequence[Path]) -> Path | None:
    """The folder on the way to `module` that may not be listed or entered."""
    for folder in paths:
        for part in dotted(module).split("."):
            folder = folder / part  # noqa: PLW2901  # one level down
            if is_folder(folder) and not os.access(folder, os.R_OK | os.X_OK):
                return folder
    return None


def _unreadable(
    plan: LaunchPlan, path: Path, error: BaseException | None = None
) -> ProjectError:
    reason = getattr(error, "strerror", None) or os.strerror(EACCES)
    return ProjectError(
        f"{path_shown(path, plan.path)} cannot be read: {reason}.",
        hint="Make it readable for the user that runs djasgi.",
    )


def _module_hint(plan: LaunchPlan, module: str, suffix: str) -> str:
    if guess := corrected(module, plan.paths):
        return f"Did you mean {guess}{suffix}?"
    package, _, last = module.rpartition(".")
    file = module_file(package, plan.paths) if package else None
    if file is not None and file.name != "__init__.py":
        return f"{package} is a file. What is in it is named {package}:{last}"
    return f"It is looked for in {shown(plan.path)}, and among what is installed."


def _submodules(folders: Iterable[Path]) -> set[str]:
    """The modules and packages directly in these folders."""
    names: set[str] = set()
    for folder in folders:
        try:
            entries = [*folder.iterdir()]
        except OSError:
            continue
        names |= {entry.stem for entry in entries if entry.suffix == ".py"}
        names |= {
            entry.name for entry in entries if not entry.suffix and entry.is_dir()
        }
    return {name for name in names if name.isidentifier() and name[0] != "_"}


def _advice(plan: LaunchPlan, error: BaseException) -> str:
    """What may help when a module was not found."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    guess = corrected(error.name, plan.paths)
    if guess and guess != error.name:
        return f" Did you mean {guess}?"
    if module_file(error.name.partition(".")[0], plan.paths) is None:
        return f" Is it installed for {shown(sys.executable)}?"
    return ""


def _setting_at_fault(plan: LaunchPlan, error: BaseException) -> str | None:
    """The setting with a dotted name that does not lead anywhere, and its file."""
    wrapped = getattr(settings_in_force(), "_wrapped", None)
    module = sys.modules.get(getattr(wrapped, "SETTINGS_MODULE", None) or "")
    file = getattr(module, "__file__", None)
    if not file or not _is_raised_in_setup(plan, error):
        return None
    setting = _setting_that_names(wrapped, error)
    return f"{setting} in {path_shown(Path(file), plan.path)}" if setting else None


def _is_raised_in_setup(plan: LaunchPlan, error: BaseException) -> bool:
    """Whether Django raised it while it was setting itself up."""
    django = _django()
    if django is None or isinstance(error, SyntaxError):
        return False
    files = [Path(f.filename) for f in traceback.extract_tb(error.__traceback__)]
    own = [index for index, file in enumerate(files) if _inside(file, plan.path)]
    theirs = [
        file
        for file in (files[own[-1] + 1 :] if own else files)
        if file.is_relative_to(django)
    ]
    # Not where the project's own code uses Django: the cause is there, in a model.
    entries = (django / "core" / "asgi.py", django / "__init__.py")
    return bool(theirs) and (not own or theirs[0] in entries)


def _setting_that_names(settings: Any, error: BaseException) -> str | None:
    name = getattr(error, "name", None)
    text = str(error)
    for setting in ("INSTALLED_APPS", "MIDDLEWARE", "ROOT_URLCONF"):
        value = getattr(settings, setting, None) or ()
        for entry in map(str, (value,) if isinstance(value, str) else value):
            module = entry.rpartition(".")[0]
            if name and is_or_contains(name, entry):
                return setting
            if f'"{module}"' in text or f"'{entry}'" in text:
                return setting
    return None


def _assignment(plan: LaunchPlan) -> str:
    """Where the project assigns DJANGO_SETTINGS_MODULE, as file:line."""
    target = plan.application.target
    entry = target and (target.file or module_file(target.module, plan.paths))
    files = [getattr(module, "__file__", None) for module in [*sys.modules.values()]]
    # The entry file first: where its import has failed, it is not among the modules.
    for file in [*([entry] if entry else []), *(Path(file) for file in files if file)]:
        if not any(_inside(file, path) for path in plan.paths):
            continue
        for node in ast.walk(_parsed(file)):
            if isinstance(node, ast.Assign) and any(
                isinstance(part, ast.Subscript)
                and "DJANGO_SETTINGS_MODULE" in ast.unparse(part)
                for part in node.targets
            ):
                return f"{path_shown(file, plan.path)}:{node.lineno}"
    return "Something in the project"


def _parsed(path: Path) -> ast.AST:
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return ast.Module(body=[], type_ignores=[])


def _summary(error: BaseException) -> str:
    """The kind of the error and the first line of what it says."""
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({'' if error.code is None else repr(error.code)})"
    try:
        text = str(error.msg if isinstance(error, SyntaxError) else error).strip()
    except Exception:  # noqa: BLE001  # of an exception of the user's
        text = ""
    return ": ".join([type(error).__name__, *text.splitlines()[:1]])


def _own(
    frames: Iterable[traceback.FrameSummary], *, in_text: bool
) -> list[traceback.FrameSummary]:
    """The frames to show; those of Django only if it is they where it ends."""
    hidden = (HERE, *IMPORT_SYSTEM)
    left = [frame for frame in frames if not frame.filename.startswith(hidden)]
    if (folder := _django()) is None:
        return left
    django = str(folder) + os.sep
    theirs = [frame.filename.startswith(django) for frame in left]
    last = max((n for n, is_theirs in enumerate(theirs) if not is_theirs), default=-1)
    if in_text:
        last = len(left)
    return [f for n, f in enumerate(left) if n > last or not theirs[n]]


def _django() -> Path | None:
    file = getattr(sys.modules.get("django"), "__file__", None)
    return Path(file).parent if file else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _is_exhaustion(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in (EMFILE, ENFILE)
    return isinstance(error, ImportError) and os.strerror(EMFILE) in str(error)


def _is_ours(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    return bool(frames) and frames[-1].filename.startswith(HERE)


def _inside(path: Path, directory: Path) -> bool:
    return path.is_relative_to(directory) and "site-packages" not in path.parts
