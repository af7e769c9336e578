"""`djasgi check`: run the checks on a plan, Django's own among them."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from djasgi import loading
from djasgi.checks.base import (
    PREFIX,
    Check,
    Finding,
    Level,
    Needs,
    Place,
    all_checks,
    findings,
    full_id,
    named,
)
from djasgi.checks.context import Context
from djasgi.errors import DjasgiError
from djasgi.failures import explained, settings_in_force
from djasgi.plan import LaunchPlan


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked of `djasgi check`, beside the plan."""

    deploy: bool = False
    probe: bool = False
    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()


@dataclass(slots=True)
class Report:
    """What came out."""

    plan: LaunchPlan
    deploy: bool
    findings: list[Finding] = field(default_factory=list)
    silenced: list[Finding] = field(default_factory=list)
    stale: tuple[str, ...] = ()
    skipped: list[tuple[str, str]] = field(default_factory=list)
    checks: int = 0
    error: DjasgiError | None = None
    repository: Path = field(default_factory=Path)

    def reaches(self, level: Level) -> bool:
        """Whether a finding is at or above `level`."""
        return any(finding.level >= level for finding in self.findings)


def run(plan: LaunchPlan, request: Request) -> Report:
    """Check a plan: first what needs no import, then the project, then, if asked for,
    a worker that serves it.

    A project that cannot be loaded keeps what was found before; `error` says why.
    Raises UsageError for an id that does not exist.
    """
    if request.probe:
        # Before the project's root is on sys.path, where an http.py may be.
        importlib.import_module("djasgi.probe")
    only = {_typed(name) for name in request.only}
    skip = {_typed(name) for name in request.skip}
    deploy = request.deploy or plan.production
    context = Context(plan, deploy=deploy, inherited=dict(os.environ))
    report = Report(plan, deploy, repository=context.repository)
    wanted = [
        check
        for check in all_checks().values()
        if (not only or check.id in only)
        and check.id not in skip
        and (deploy or not check.deploy)
    ]
    found: list[Finding] = []
    _run(wanted, Needs.FILES, context, report, found)
    if only and not request.probe and _static(wanted, only):
        _settle(report, context, found, complete=False)
        return report
    try:
        _load(plan, context)
        if context.settings is not None:
            for needs in (Needs.SETTINGS, Needs.LOADED):
                _run(wanted, needs, context, report, found)
            found += _django(context, report, only, skip)
        if request.probe:
            _probe(wanted, context, report, found)
    except DjasgiError as error:
        report.error = error
    _settle(report, context, found, complete=not only and not skip)
    return report


def _static(wanted: Sequence[Check], only: set[str]) -> bool:
    """Whether what is wanted can be told without importing the project."""
    return all(name.startswith(PREFIX) for name in only) and all(
        check.needs is Needs.FILES for check in wanted
    )


def _typed(name: str) -> str:
    word = full_id(name)
    return named(name).id if word.startswith(PREFIX) else word


def _run(
    checks: Sequence[Check],
    needs: Needs,
    context: Context,
    report: Report,
    found: list[Finding],
) -> None:
    for check in checks:
        if check.needs is not needs:
            continue
        report.checks += 1
        try:
            found += findings(check, context)
        except Exception as error:  # noqa: BLE001  # settings may be of any shape
            reason = f"it failed with {type(error).__name__}: {error}"
            report.skipped.append((check.id, reason))


def _load(plan: LaunchPlan, context: Context) -> None:
    """Import the project as serving would; what it prints goes to standard error."""
    begin = time.monotonic()
    with _output_to_error():
        loaded = loading.load(plan)
    context.load_seconds = time.monotonic() - begin
    context.application = loaded.application
    context.settings = settings_in_force()
    wrapped = getattr(context.settings, "_wrapped", None)
    context.settings_module = getattr(wrapped, "SETTINGS_MODULE", None)


@contextmanager
def _output_to_error() -> Iterator[None]:
    """Keep standard output for the findings: other programs read it."""
    try:
        output, error = sys.stdout.fileno(), sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        yield
        return
    sys.stdout.flush()
    kept = os.dup(output)
    try:
        os.dup2(error, output)
        yield
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os.dup2(kept, output)
        os.close(kept)


def _django(
    context: Context, report: Report, only: set[str], skip: set[str]
) -> list[Finding]:
    """What Django's own system checks say, under their ids."""
    from django.apps import apps
    from django.core import checks

    if not apps.ready or (only and not any(not i.startswith(PREFIX) for i in only)):
        return []
    registry = checks.registry.registry
    with _output_to_error(), explained(report.plan):
        messages = checks.run_checks(include_deployment_checks=context.deploy)
    report.checks += len(registry.get_checks(context.deploy))
    found = [_of_django(message, context) for message in messages]
    return [
        finding
        for finding in found
        if (not only or finding.id in only)
        and finding.id not in skip
        and not finding.id.startswith(PREFIX)
    ]


def _of_django(message: Any, context: Context) -> Finding:
    text = " ".join(str(message.msg).split())
    subject = _subject(message.obj)
    level = max((x for x in Level if x <= message.level), default=Level.DEBUG)
    title, _, rest = text.partition(". ")
    return Finding(
        text=rest,
        mend=" ".join(str(message.hint or "").split()),
        place=_place_of(message.obj, context),
        id=str(message.id or "django"),
        title=f"{subject}: {title}" if subject else title,
        level=level,
    )


def _subject(obj: Any) -> str:
    if obj is None:
        return ""
    label = getattr(getattr(obj, "_meta", None), "label", None)
    model = getattr(getattr(getattr(obj, "model", None), "_meta", None), "label", None)
    name = getattr(obj, "name", None)
    if label:
        return str(label)
    if model and name:
        return f"{model}.{name}"
    return str(obj)


def _place_of(obj: Any, context: Context) -> Place | None:
    """Where the model or class is that a message is about, in the project's own code."""
    import inspect

    target = getattr(obj, "model", obj)
    if not inspect.isclass(target):
        target = type(target)
    try:
        path = Path(inspect.getsourcefile(target) or "")
        if not any(path.is_relative_to(root) for root in context.paths):
            return None
        lines, line = inspect.getsourcelines(target)
    except (OSError, TypeError):
        return None
    return Place(path, line, lines[0].strip())


def _probe(
    checks: Sequence[Check], context: Context, report: Report, found: list[Finding]
) -> None:
    from djasgi import probe

    if context.settings is None:  # not Django's: it starts, or does not
        checks = [check for check in checks if check.short == "E081"]
    with probe.served(report.plan, context.inherited) as served:
        context.served = served
        _run(checks, Needs.SERVED, context, report, found)


def _settle(
    report: Report, context: Context, found: Sequence[Finding], *, complete: bool
) -> None:
    """Take out what is silenced or said twice, sort, and name what was skipped."""
    own = {full_id(name): name for name in report.plan.silence}
    settings = context.settings
    django = set(getattr(settings, "SILENCED_SYSTEM_CHECKS", ()) or ())
    said = {identity for finding in found for identity in finding.replaces}
    for finding in found:
        if finding.id in own or finding.id in django:
            report.silenced.append(finding)
        elif finding.id not in said:
            report.findings.append(finding)
    report.findings.sort(key=_order)
    if complete and report.deploy and report.error is None:
        report.stale = _stale(report, own, django, context)
    for path, reason in (
        *context.deployments.skipped,
        *context.sources.skipped.items(),
    ):
        report.skipped.append((context.shown(path), reason))


def _stale(
    report: Report, own: Mapping[str, str], django: set[str], context: Context
) -> tuple[str, ...]:
    """The ids that are silenced and that nothing was found for.

    Those of --probe are not looked for without it; what Django's setting silences of
    Django's own may be for another environment.
    """
    checks = all_checks()
    occurred = {finding.id for finding in report.silenced}
    names = [*own, *sorted(name for name in django if name.startswith(PREFIX))]
    return tuple(
        dict.fromkeys(
            name
            for name in names
            if name not in occurred
            and not (
                context.served is None
                and name in checks
                and checks[name].needs is Needs.SERVED
            )
        )
    )


def _order(finding: Finding) -> tuple[Any, ...]:
    place = finding.place
    return (
        -finding.level,
        not finding.id.startswith(PREFIX),
        finding.id,
        str(place.file) if place else "",
        place.line if place else 0,
    )
