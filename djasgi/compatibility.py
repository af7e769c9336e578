"""Which Django the handler of djasgi may stand in for.

Known without importing Django: `explain` and refusals come first.
"""

from __future__ import annotations

import re
import sys

from djasgi.errors import UsageError
from djasgi.frozen import Frozen
from djasgi.plan import LaunchPlan

VERIFIED = ((5, 2), (6, 1))
"""The oldest and the newest Django whose own test suite passes with djasgi's handler."""


class Handler(Frozen):
    """The handler in force, `djasgi` or `django`, and why it is not the default."""

    name: str
    reason: str = ""


def handler(plan: LaunchPlan) -> Handler:
    """The plan's handler.

    Raises UsageError if djasgi's was asked for with a Django that it is not proven with.
    """
    if plan.options.handler == "django":
        return Handler("django")
    found = _version()
    if VERIFIED[0] <= _series(found) <= VERIFIED[1]:
        return Handler("djasgi")
    proven = " to ".join(".".join(map(str, series)) for series in VERIFIED)
    reason = f"djasgi's handler is proven with Django {proven}, not with {found}"
    asked = plan.values["handler"]
    if asked.asked:
        raise UsageError(
            f"{reason} ({asked.origin}).",
            hint="Leave it out: Django's own serves then.",
        )
    return Handler("django", f"{reason}: Django's own serves.")


def _series(release: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", release)[:2]))


def _version() -> str:
    if "django" in sys.modules:
        return str(sys.modules["django"].__version__)
    from importlib.metadata import version

    return version("django")
