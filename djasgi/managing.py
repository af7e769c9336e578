"""`djasgi manage`: the project's manage.py, under the plan's settings and variables."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from djasgi import output
from djasgi.errors import UsageError
from djasgi.modules import is_surely_missing
from djasgi.plan import LaunchPlan


def manage(plan: LaunchPlan, command: Sequence[str]) -> int:
    """Replace this process by manage.py under the plan's settings and variables.

    Raises UsageError when manage.py assigns other settings than the planned ones, and
    ProjectError when the project has no such settings.
    """
    found = plan.root.manage
    settings = plan.settings
    if settings and is_surely_missing(settings.value, plan.paths):
        from djasgi.failures import missing_settings

        raise missing_settings(plan, settings.value, settings.origin)
    own = found.settings if found and found.assigned else None
    if own and settings and own.value != settings.value:
        raise UsageError(
            f"{own.origin} assigns DJANGO_SETTINGS_MODULE = {own.value}, not "
            f"{settings.value} ({settings.origin}).",
            hint="Use os.environ.setdefault() in manage.py.",
        )
    for warning in plan.warnings:
        output.warn(warning)
    from djasgi.loading import SUPERVISION

    environ = {n: value for n, value in os.environ.items() if n not in SUPERVISION}
    for name, value in plan.variables.items():
        environ[name] = str(value.value)
    if found:
        argv = [sys.executable, str(found.path), *command]
    else:
        path = os.pathsep.join([*map(str, plan.paths), environ.get("PYTHONPATH", "")])
        environ["PYTHONPATH"] = path.rstrip(os.pathsep)
        argv = [sys.executable, "-m", "django", *command]
    sys.stdout.flush()
    os.execve(sys.executable, argv, environ)  # noqa: S606  # there is no shell in it
