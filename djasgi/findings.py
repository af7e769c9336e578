"""What `djasgi check` found: for people, for machines, for GitHub."""

from __future__ import annotations

import json
import re
import textwrap
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from djasgi import output
from djasgi.checking import Report
from djasgi.checks.base import PREFIX, Check, Finding, Level, Needs, Place
from djasgi.plan import LaunchPlan
from djasgi.source import shown

RED = "31"
COLORS = {
    Level.CRITICAL: RED,
    Level.ERROR: RED,
    Level.WARNING: output.YELLOW,
    Level.INFO: output.CYAN,
    Level.DEBUG: output.DIM,
}
MOST_SOURCE = 160
"""Characters of a source line that are shown."""

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "djasgi check --format json",
    "type": "object",
    "required": ["version", "plan", "findings", "silenced", "stale", "skipped",
                 "warnings", "checks", "error"],
    "properties": {
        "version": {"const": 1, "description": "of this format"},
        "plan": {
            "type": "object",
            "required": ["settings", "environment", "server", "workers", "deploy"],
            "properties": {
                "settings": {"type": ["string", "null"]},
                "environment": {"type": ["string", "null"]},
                "server": {"type": "string"},
                "workers": {"type": ["integer", "string"]},
                "deploy": {"type": "boolean"},
            },
        },
        "findings": {"type": "array", "items": {"$ref": "#/$defs/finding"}},
        "silenced": {"type": "array", "items": {"type": "string"}},
        "stale": {"type": "array", "items": {"type": "string"}},
        "skipped": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["file", "reason"],
                "properties": {
                    "file": {"type": "string"},
                    "reason": {"type": "string"},
                },
            },
        },
        "warnings": {"type": "array", "items": {"type": "string"}},
        "checks": {"type": "integer", "minimum": 0},
        "error": {
            "type": ["object", "null"],
            "required": ["message", "hint"],
            "properties": {
                "message": {"type": "string"},
                "hint": {"type": "string"},
            },
        },
    },
    "$defs": {
        "place": {
            "type": ["object", "null"],
            "required": ["file", "line", "source", "inside"],
            "properties": {
                "file": {"type": "string"},
                "line": {"type": "integer", "minimum": 0},
                "source": {"type": "string"},
                "inside": {"type": "string"},
            },
        },
        "finding": {
            "type": "object",
            "required": ["id", "level", "title", "text", "mend", "diff", "place",
                         "trail", "links"],
            "properties": {
                "id": {"type": "string"},
                "level": {"enum": [level.word for level in Level]},
                "title": {"type": "string"},
                "text": {"type": "string"},
                "mend": {"type": "string"},
                "diff": {"type": "string"},
                "place": {"$ref": "#/$defs/place"},
                "trail": {"type": "array", "items": {"$ref": "#/$defs/place"}},
                "links": {"type": "array", "items": {"type": "string"}},
            },
        },
    },
}  # fmt: skip
"""The JSON schema of `--format json`."""


# For people


def text(report: Report, *, color: bool) -> str:
    """The findings, worst first, and one line that sums them up."""
    lines: list[str] = []
    if report.findings or report.error:
        lines += [heading(report.plan), ""]
    for finding in report.findings:
        lines += [*_block(finding, report, color=color), ""]
    lines += [shown(warning) for warning in report.plan.warnings]
    lines += [f"skipped {shown(file)}: {reason}" for file, reason in report.skipped]
    lines += [
        f"{name} is silenced, and no longer found: remove it." for name in report.stale
    ]
    lines.append(summary(report))
    return "\n".join(lines)


def heading(plan: LaunchPlan) -> str:
    """What was checked: settings, server, workers."""
    settings = plan.settings.value if plan.settings else output.application(plan)
    workers = plan.options.workers
    count = f"{workers} worker{'' if workers == 1 else 's'}"
    return shown(f"{settings} on {plan.options.server}, {count}")


def summary(report: Report) -> str:
    """The last line: how many of each level, in how many checks."""
    counts = Counter(finding.level for finding in report.findings)
    parts = [
        f"{counts[level]} {level.word}{'' if counts[level] == 1 else 's'}"
        for level in sorted(counts, reverse=True)
    ]
    tail = f"{report.checks} checks"
    if report.silenced:
        tail += f", {len(report.silenced)} silenced"
    if report.error is not None:
        tail += "; the others need the project, which does not load"
        return f"{', '.join(parts) or 'Nothing found'} in {tail}."
    if not parts:
        return f"Nothing found in {tail}: {heading(report.plan)}."
    own = next((f for f in report.findings if f.id.startswith(PREFIX)), None)
    more = (
        f"  More: djasgi check --explain {own.id.removeprefix(PREFIX)}" if own else ""
    )
    return f"{', '.join(parts)} in {tail}.{more}"


def _block(finding: Finding, report: Report, *, color: bool) -> list[str]:
    word = output.style(finding.level.word, COLORS[finding.level], color=color)
    head = f"{finding.level.word}  {shown(finding.id)}  {shown(finding.title)}"
    first, *rest = textwrap.wrap(head, output.width() - 2) or [head]
    first = word + first.removeprefix(finding.level.word)
    lines = [f"  {line}" for line in (first, *rest)]
    lines += _place_lines(finding.place, report)
    for step in finding.trail:
        lines += _place_lines(step, report, arrow=True)
    for part in (finding.text, finding.mend):
        if part:
            lines += _wrapped(part)
    lines += [f"    {shown(line)}" for line in finding.diff.split("\n") if line]
    return lines


def _place_lines(
    place: Place | None, report: Report, *, arrow: bool = False
) -> list[str]:
    if place is None:
        return []
    where = _relative(place.file, report)
    where += f":{place.line}" if place.line else ""
    where += f"  in {place.inside}" if place.inside else ""
    lines = [f"  {'→ ' if arrow else ''}{shown(where)}"]
    if place.source:
        lines.append(f"      {shown(_source(place))}")
    return lines


def _wrapped(paragraph: str) -> list[str]:
    return [f"  {line}" for line in textwrap.wrap(shown(paragraph), output.width() - 2)]


_LITERAL = re.compile(
    r"""(?P<name>[\w"']*(?:key|secret|token|passw|pwd|dsn|credential|salt)[\w"'\]]*\s*[:=]\s*)(?P<quote>["']).*""",
    re.IGNORECASE,
)


def _source(place: Place) -> str:
    """A source line for printing: cut, and without secrets."""
    line = place.source[:MOST_SOURCE]
    line = _LITERAL.sub(rf"\g<name>\g<quote>{output.MASK}\g<quote>", line)
    return output.masked("", line)


def _relative(path: Path, report: Report) -> str:
    for base in (report.plan.path, report.repository):
        if path.is_relative_to(base):
            return str(path.relative_to(base))
    return str(path)


# For machines


def as_json(report: Report) -> str:
    """The report by `SCHEMA`."""
    plan, error = report.plan, report.error
    return output.json_text(
        {
            "version": 1,
            "plan": {
                "settings": plan.settings.value if plan.settings else None,
                "environment": plan.environment.value if plan.environment else None,
                "server": plan.options.server,
                "workers": plan.options.workers,
                "deploy": report.deploy,
            },
            "findings": [_finding(finding, report) for finding in report.findings],
            "silenced": sorted({finding.id for finding in report.silenced}),
            "stale": list(report.stale),
            "skipped": [{"file": f, "reason": r} for f, r in report.skipped],
            "warnings": list(plan.warnings),
            "checks": report.checks,
            "error": {"message": error.message, "hint": error.hint} if error else None,
        }
    )


def _finding(finding: Finding, report: Report) -> dict[str, Any]:
    return {
        "id": finding.id,
        "level": finding.level.word,
        "title": finding.title,
        "text": finding.text,
        "mend": finding.mend,
        "diff": finding.diff,
        "place": _place(finding.place, report),
        "trail": [_place(step, report) for step in finding.trail],
        "links": list(finding.links),
    }


def _place(place: Place | None, report: Report) -> dict[str, Any] | None:
    if place is None:
        return None
    return {
        "file": _encodable(_relative(place.file, report)),
        "line": place.line,
        "source": _encodable(_source(place)),
        "inside": place.inside,
    }


def _encodable(text: str) -> str:
    """Text without the halves of characters that stand for undecodable bytes."""
    return text.encode("utf-8", "backslashreplace").decode()


# For GitHub


_COMMANDS = {Level.WARNING: "warning", Level.INFO: "notice", Level.DEBUG: "notice"}


def github(report: Report) -> str:
    """Annotations (docs.github.com, workflow commands): one line each."""
    lines = [_annotation(finding, report) for finding in report.findings]
    if report.error is not None:
        message = f"{report.error.message} {report.error.hint}"
        lines.append(f"::error title={_property('djasgi check')}::{_data(message)}")
    return "\n".join([*lines, summary(report)])


def _annotation(finding: Finding, report: Report) -> str:
    values: dict[str, str] = {}
    place = finding.place
    if place is not None:
        base = report.repository
        path = place.file
        values["file"] = str(
            path.relative_to(base) if path.is_relative_to(base) else path
        )
        if place.line:
            values["line"] = str(place.line)
    values["title"] = f"{finding.id} {finding.title}"
    properties = ",".join(f"{name}={_property(text)}" for name, text in values.items())
    message = "\n".join(filter(None, (finding.text, finding.mend))) or finding.title
    command = _COMMANDS.get(finding.level, "error")
    return f"::{command} {properties}::{_data(message)}"


def _data(text: str) -> str:
    """Text as the message of a workflow command."""
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return shown(escaped)


def _property(text: str) -> str:
    """Text as the value of a property of a workflow command."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")


# The registry


def listed(checks: Iterable[Check]) -> str:
    """`--list`: every check, one line each."""
    return "\n".join(
        f"{check.id}  {check.level.word:<8} {check.title}{_when(check)}"
        for check in checks
    )


def _when(check: Check) -> str:
    words = []
    if check.deploy:
        words.append("production")
    if check.needs is Needs.SERVED:
        words.append("--probe")
    return f"  ({', '.join(words)})" if words else ""


def explanation(check: Check) -> str:
    """`--explain`: the long form, with an example."""
    lines = [f"{check.id}  {check.title}", "", *_wrapped(check.why), ""]
    if check.deploy:
        lines += ["  Only in production, or with --deploy.", ""]
    if check.needs is Needs.SERVED:
        lines += ["  Only with --probe.", ""]
    lines += ["  Found in, for example:", ""]
    lines += [f"      {line}".rstrip() for line in check.example.split("\n")]
    lines += ["", *(f"  {link}" for link in check.links), ""]
    silence = json.dumps(check.id)
    lines.append(f"  To silence it: silence = [{silence}] in [tool.djasgi]")
    return "\n".join(lines)
