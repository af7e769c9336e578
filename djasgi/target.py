"""Application import strings: `config.asgi:application`, `app.py` and the like."""

from __future__ import annotations

import keyword
from pathlib import Path

from djasgi.errors import ProjectError, UsageError, nearest
from djasgi.frozen import Frozen
from djasgi.modules import module_names
from djasgi.source import enumerated, is_file, is_folder, shown


class Target(Frozen):
    """An application import string, parsed."""

    module: str  # "config.asgi"; "" for a file
    file: Path | None  # for "app.py", "sub/app.py:application"
    attribute: str | None  # "a.b"; None: to be found (application, then app)
    call: bool  # "module:factory()"

    def __str__(self) -> str:
        attribute = f":{self.attribute}" if self.attribute else ""
        return f"{self.file or self.module}{attribute}{'()' if self.call else ''}"


_FORMS = (
    "Accepted: module, module:attribute, module:factory(), app.py or app.py:attribute"
)


def parse_target(text: str, cwd: Path) -> Target:
    """The target that `text` names; file paths are relative to `cwd`.

    Raises UsageError if it has none of the accepted forms, ProjectError if it is a file
    that does not exist.
    """
    place, colon, attribute = text, "", ""
    if ":" in text and not text.endswith(".py"):  # the folders' names may have one
        place, colon, attribute = text.rpartition(":")
    call = attribute.endswith("()")
    attribute = attribute.removesuffix("()")
    if bool(colon) != bool(attribute) or (attribute and not _is_dotted(attribute)):
        raise UsageError(f'"{shown(text)}" is not an application.', hint=_FORMS)
    if place.endswith(".py") and "\0" not in place:
        return Target("", _existing(cwd / place), attribute or None, call)
    if not _is_dotted(place):
        raise UsageError(f'"{shown(text)}" is not an application.', hint=_FORMS)
    return Target(place, None, attribute or None, call)


def _is_dotted(text: str) -> bool:
    parts = text.split(".")
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in parts)


def _existing(file: Path) -> Path:
    if is_file(file):
        return file.absolute()
    if is_folder(file):
        raise ProjectError(
            f"{shown(file)} is a folder.", hint="Name a file or a module in it."
        )
    names = sorted(module_names([file.parent]))
    if other := nearest(file.stem, names):
        hint = f"Did you mean {shown(file.with_name(f'{other}.py'))}?"
    elif names:
        hint = f"In that folder: {enumerated([f'{name}.py' for name in names])}"
    else:
        hint = "There is no Python file in that folder."
    raise ProjectError(f"There is no file {shown(file)}.", hint=hint)
