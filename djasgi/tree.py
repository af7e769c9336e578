"""The folders around a project: its repository, and what in it is its own."""

from __future__ import annotations

import os
from pathlib import Path

from djasgi.errors import ProjectError
from djasgi.source import is_file, is_folder, shown

_REPOSITORY = (".git", ".hg", ".svn")
_SKIPPED = {"node_modules", "site-packages", "__pycache__", "__pypackages__"}


def up_to_repository(folder: Path, top: Path | None = None) -> list[Path]:
    """`folder` and its parents up to the root of its repository.

    Without a repository up to `top`, if that is one of them; else just `folder`.
    """
    bases: list[Path] = []
    for base in (folder, *folder.parents):
        bases.append(base)
        if any(_is_ours(base / name, folder) for name in _REPOSITORY):
            return bases
    return bases[: bases.index(top) + 1] if top in bases else [folder]


def _is_ours(marker: Path, folder: Path) -> bool:
    # As git: a .git that somebody else has put into /tmp must not make their manage.py
    # there ours.
    try:
        owner = marker.lstat().st_uid
        return owner in (os.geteuid(), folder.stat().st_uid)
    except OSError:
        return False


def is_inside(path: Path, tree: Path) -> bool:
    """Whether `path`, its links followed, is in `tree`."""
    return path.resolve().is_relative_to(tree.resolve())


def own_folders(base: Path, tree: Path | None = None) -> list[Path]:
    """The sub-folders of `base` that can hold code of the project, sorted.

    No virtual environments, installed packages, hidden folders, or links out of `tree`
    (`base`). None at all if it cannot be read.
    """
    try:
        with os.scandir(base) as entries:
            names = sorted(entry.name for entry in entries if _may_be_folder(entry))
    except (OSError, ValueError):
        return []
    return [folder for name in names if _is_own(folder := base / name, tree or base)]


def _may_be_folder(entry: os.DirEntry[str]) -> bool:
    return not entry.is_file(follow_symlinks=False)


def _is_own(folder: Path, tree: Path) -> bool:
    if folder.name.startswith(".") or folder.name in _SKIPPED:
        return False
    return (
        is_folder(folder)
        and not is_file(folder / "pyvenv.cfg")
        and (not folder.is_symlink() or is_inside(folder, tree))
    )


def require_readable(folder: Path, hint: str) -> None:
    """Raises ProjectError if `folder` cannot be listed and entered."""
    try:
        with os.scandir(folder):
            # Listing needs one permission, opening the files inside another.
            (folder / "manage.py").lstat()
    except FileNotFoundError:
        if is_folder(folder):
            return
        raise ProjectError(
            f"The folder {shown(folder)} does not exist (any more).", hint=hint
        ) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ProjectError(
            f"The folder {shown(folder)} cannot be read: {reason}.", hint=hint
        ) from None
