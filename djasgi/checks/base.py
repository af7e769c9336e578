"""The registry of checks: small functions with stable ids that yield findings."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from djasgi.errors import UsageError, nearest

if TYPE_CHECKING:
    from djasgi.checks.context import Context

PREFIX = "djasgi."


class Level(IntEnum):
    """How serious a finding is: Django's levels, by Django's numbers."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40
    CRITICAL = 50

    @property
    def word(self) -> str:
        return self.name.lower()


LETTERS = {"E": Level.ERROR, "W": Level.WARNING, "I": Level.INFO}


class Needs(IntEnum):
    """What a check looks at; each includes those before it."""

    FILES = 0  # files and the plan, nothing of the project is run
    SETTINGS = 1  # the settings alone: also a system check of Django
    LOADED = 2  # the imported project and the plan
    SERVED = 3  # a running worker: --probe


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands. Line 0: the file as a whole."""

    file: Path
    line: int = 0
    source: str = ""
    inside: str = ""  # the function it is in


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, where, why it bites here, and how to mend it."""

    text: str
    mend: str
    place: Place | None = None
    diff: str = ""
    id: str = ""
    title: str = ""
    level: Level = Level.WARNING
    links: tuple[str, ...] = ()
    trail: tuple[Place, ...] = ()  # the calls that lead to `place`, the first first
    replaces: tuple[str, ...] = ()  # ids of Django's that say less of the same


Run = Callable[["Context"], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """A registered check."""

    id: str
    title: str
    row: tuple[int, ...]  # of the collection of evidence that it goes back to
    needs: Needs
    deploy: bool  # only where the plan is for production, or --deploy
    why: str
    links: tuple[str, ...]
    example: str
    run: Run = field(compare=False)

    @property
    def short(self) -> str:
        return self.id.removeprefix(PREFIX)

    @property
    def level(self) -> Level:
        return LETTERS[self.short[0]]


_checks: dict[str, Check] = {}


def check(
    short: str,
    title: str,
    *,
    row: int | tuple[int, ...],
    why: str,
    links: tuple[str, ...],
    example: str,
    needs: Needs = Needs.LOADED,
    deploy: bool = False,
) -> Callable[[Run], Run]:
    """Register a function as the check `djasgi.<short>`; E, W or I says its level.

    `why` is for `--explain`, as is `example`. Raises ValueError for an id that is taken.
    """

    def register(run: Run) -> Run:
        name = PREFIX + short
        number = short[1:]
        if any(number == other.short[1:] for other in _checks.values()):
            raise ValueError(f"the number of {name} is taken")
        rows = row if isinstance(row, tuple) else (row,)
        _checks[name] = Check(
            name, title, rows, needs, deploy, why, links, example, run
        )
        return run

    return register


def all_checks() -> dict[str, Check]:
    """Every check by its id, in the order of the numbers."""
    package = importlib.import_module("djasgi.checks")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return dict(sorted(_checks.items(), key=lambda item: item[1].short[1:]))


def named(text: str) -> Check:
    """The check that somebody typed the id of. Raises UsageError if there is none."""
    checks = all_checks()
    wanted = full_id(text)
    if wanted in checks:
        return checks[wanted]
    shorts = {check.short: check.id for check in checks.values()}
    guess = shorts.get(nearest(wanted.removeprefix(PREFIX), list(shorts)) or "")
    raise UsageError(
        f"There is no check {text!r}.",
        hint=f"Did you mean {guess}?" if guess else "See them: djasgi check --list",
    )


def full_id(text: str) -> str:
    """An id as it is written in full: `E011` is `djasgi.E011`."""
    word = text.strip()
    if "." not in word:
        return PREFIX + word.upper()
    app, _, code = word.rpartition(".")
    return f"{app.lower()}.{code}" if app.lower() == "djasgi" else word


def findings(check: Check, context: Context) -> list[Finding]:
    """What a check finds, with its id, title, level and links filled in."""
    return [_completed(check, finding) for finding in check.run(context)]


def _completed(check: Check, finding: Finding) -> Finding:
    values: dict[str, Any] = {
        name: getattr(finding, name) for name in Finding.__dataclass_fields__
    }
    values |= {"id": check.id, "level": check.level, "links": check.links}
    values["title"] = finding.title or check.title
    return Finding(**values)
