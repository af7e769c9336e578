"""Which test is a probe of which option."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from djasgi.options import OPTIONS

TESTS = Path(__file__).parent.parent
PLACES = ("conformance", "process")

Test = TypeVar("Test", bound=Callable[..., None])


def probes(*options: str) -> Callable[[Test], Test]:
    """Mark a test that starts the servers and observes what these options do."""
    unknown = set(options) - set(OPTIONS)
    assert not unknown, unknown
    return lambda test: test


@dataclass(frozen=True, slots=True)
class Probe:
    """A test so marked."""

    option: str
    place: str
    fixtures: frozenset[str]


@cache
def all_probes() -> list[Probe]:
    """Those of all test files, whichever of them are run."""
    return [
        probe
        for folder in PLACES
        for path in sorted((TESTS / folder).glob("test_*.py"))
        for probe in _of(path)
    ]


def _of(path: Path) -> list[Probe]:
    return [
        Probe(
            ast.literal_eval(option),
            f"{path.name}:{function.lineno}",
            frozenset(argument.arg for argument in function.args.args),
        )
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef)
        for mark in function.decorator_list
        if isinstance(mark, ast.Call)
        and isinstance(mark.func, ast.Name)
        and mark.func.id == "probes"
        for option in mark.args
    ]
