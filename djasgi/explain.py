"""`djasgi explain`: the plan, the origin of each value, the nearest native command."""

from __future__ import annotations

import os
import re
import shlex
import string
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from djasgi import compatibility, discovery, hops, logs, output, run, servers
from djasgi.loading import DEFAULT_ATTRIBUTES
from djasgi.options import OPTIONS
from djasgi.plan import LaunchPlan
from djasgi.servers.base import Refused, Supplied
from djasgi.values import DEFAULT, Value

PROJECT_OPTIONS = ("app", "project", "env", "settings")
ADDRESS_OPTIONS = ("host", "port", "bind", "uds", "fd")
NOT_ARGUMENTS = (*PROJECT_OPTIONS, *ADDRESS_OPTIONS, "server", "factory")


def describe(plan: LaunchPlan) -> dict[str, Any]:
    """Everything that `text` shows, as plain data; secrets masked.

    Raises UsageError for what serve would refuse before it starts.
    """
    run.vet(plan)
    return {
        "project": _project(plan),
        "handler": _handler(plan),
        "serving": [
            _option(name, value)
            for name, value in plan.values.items()
            if name not in PROJECT_OPTIONS
        ],
        "variables": [
            {"name": name, "value": _variable(name, value), "origin": value.origin}
            for name, value in plan.variables.items()
            if name != "DJANGO_SETTINGS_MODULE"
        ],
        "native": _native(plan),
        "warnings": list(plan.warnings),
    }


def as_json(plan: LaunchPlan) -> str:
    """The plan for machines."""
    return output.json_text(describe(plan))


def text(plan: LaunchPlan, *, every: bool) -> str:
    """The plan for people, at most 80 columns where the values allow it."""
    color = logs.use_color(sys.stdout, os.environ)
    data = describe(plan)
    lines = [output.style("Project", output.BOLD, color=color)]
    lines += output.rows(_project_rows(data["project"]), color=color)
    lines += ["", output.style("Serving", output.BOLD, color=color)]
    lines += output.rows(_serving_rows(plan, data, every), color=color)
    hidden = 0 if every else _at_defaults(data["serving"])
    if hidden:
        lines.append(f"  and {hidden} options at their defaults: djasgi explain --all")
    if data["variables"]:
        entries = [(v["name"], v["value"], v["origin"]) for v in data["variables"]]
        lines += ["", output.style("Variables", output.BOLD, color=color)]
        lines += output.rows(entries, color=color)
    lines += ["", output.style("Nearest native command", output.BOLD, color=color)]
    lines += _native_lines(data["native"])
    if data["warnings"]:
        lines += ["", *(output.printable(w) for w in data["warnings"])]
    return "\n".join(lines)


def _handler(plan: LaunchPlan) -> dict[str, Any]:
    """Which handler of Django's serves, why, and what it costs for a synchronous view."""
    chosen = compatibility.handler(plan)
    module = plan.settings.value if plan.settings else ""
    before = hops.of_django(module, (*plan.paths, *sys.path)) if module else None
    return {
        "name": chosen.name,
        "reason": chosen.reason,
        "thread_hops": {"django": before, "djasgi": hops.FUSED} if before else None,
    }


def _handler_row(handler: dict[str, Any], origin: str) -> list[tuple[str, str, str]]:
    text = handler["name"]
    if counts := handler["thread_hops"]:
        text += f", {counts['django']} thread hops"
        if handler["name"] == "djasgi":
            text += f" → {counts['djasgi']}"
    rows = [("handler", text, origin)]
    return rows + ([("", handler["reason"], "")] if handler["reason"] else [])


def _project(plan: LaunchPlan) -> dict[str, Any]:
    found = plan.application
    return {
        "root": {"value": str(plan.path), "origin": plan.root.origin},
        "application": {
            "value": output.application(plan),
            "origin": found.origin,
            "synthesised": found.target is None,
            "not_taken": [
                {"path": other.path, "reason": other.reason} for other in found.rejected
            ],
        },
        "environment": _origin(plan.environment),
        "settings": _origin(plan.settings),
        "configuration": str(plan.configuration) if plan.configuration else None,
    }


def _origin(value: Value | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {
        "value": value.value,
        "origin": value.origin,
        "instead_of": [
            {"value": other, "origin": origin} for other, origin in value.instead_of
        ],
    }


def _option(name: str, value: Value) -> dict[str, Any]:
    spec = OPTIONS[name]
    return {
        "option": spec.name,
        "value": _shown(name, value.value),
        "origin": value.origin,
        "instead_of": [
            {"value": _shown(name, other), "origin": origin}
            for other, origin in value.instead_of
        ],
    }


def _shown(name: str, value: Any) -> str:
    if isinstance(value, str) and name in ADDRESS_OPTIONS:
        return value
    return OPTIONS[name].show(_masked(name, value))


def _masked(name: str, value: Any) -> Any:
    """`value` of the option `name`, without the secrets of its pairs."""
    if name in ("header", "native"):
        return tuple((key, output.masked(key, text)) for key, text in value)
    return value


def _variable(name: str, value: Value) -> str:
    if value.secret:
        return output.MASK
    return output.masked(name, str(value.value))


def _project_rows(project: dict[str, Any]) -> list[tuple[str, str, str]]:
    entries = []
    for name in ("root", "application", "environment", "settings"):
        value = project[name]
        if value is None:
            continue
        entries.append((name, value["value"], value["origin"]))
        entries += _instead(value.get("instead_of", ()))
        entries += [
            ("", f"not {other['path']}: {other['reason']}", "")
            for other in value.get("not_taken", ())
        ]
    return entries


SHOWN_ALWAYS = ("server", "workers", "handler", *ADDRESS_OPTIONS)


def _at_defaults(serving: list[dict[str, Any]]) -> int:
    return sum(
        entry["origin"] == DEFAULT and entry["option"] not in SHOWN_ALWAYS
        for entry in serving
    )


def _instead(others: Any) -> list[tuple[str, str, str]]:
    return [
        ("", f"instead of {other['value']}, {other['origin']}", "") for other in others
    ]


def _serving_rows(
    plan: LaunchPlan, data: dict[str, Any], every: bool
) -> list[tuple[str, str, str]]:
    serving = data["serving"]
    by_name = {entry["option"]: entry for entry in serving}
    server = by_name["server"]
    named = f"{server['value']} {version(server['value'])}"
    asked = [plan.values[n] for n in ADDRESS_OPTIONS if plan.values[n].asked]
    origins = ", ".join(dict.fromkeys(value.origin for value in asked)) or DEFAULT
    binds = ", ".join(str(bind) for bind in plan.binds)
    entries = [("server", named, server["origin"]), *_instead(server["instead_of"])]
    entries += [("bind", binds, origins)]
    entries += [
        ("", f"instead of {other}, {origin}", "")
        for value in asked
        for other, origin in value.instead_of
    ]
    workers = by_name["workers"]
    entries += [
        ("workers", workers["value"], workers["origin"]),
        *_instead(workers["instead_of"]),
    ]
    handler = by_name["handler"]
    entries += _handler_row(data["handler"], handler["origin"])
    entries += _instead(handler["instead_of"])
    rest = [entry for entry in serving if entry["option"] not in SHOWN_ALWAYS]
    shown = [entry for entry in rest if every or entry["origin"] != DEFAULT]
    for entry in shown:
        entries.append((entry["option"], entry["value"], entry["origin"]))
        entries += _instead(entry["instead_of"])
    return entries


def _native(plan: LaunchPlan) -> dict[str, Any]:
    server = servers.load(plan.options.server)
    support = server.SUPPORT
    arguments = server.native_address(plan.binds)
    cannot = []
    for name, value in plan.values.items():
        if name in NOT_ARGUMENTS or not value.asked:
            continue
        how = support[name]
        spec = OPTIONS[name]
        known = value.value != "auto" or spec.default == "auto"  # by no server
        if known and not isinstance(how, Refused) and how.flag:
            arguments += how.arguments(_masked(name, value.value), spec.kind)
        elif value.value != spec.default:
            cannot.append(f"honour {spec.flag} {_shown(name, value.value)}")
    file_passed = isinstance(how := support["env_file"], Supplied) and bool(how.flag)
    environ = {
        name: _variable(name, value)
        for name, value in plan.variables.items()
        if not (value.secret and file_passed)
    }
    name, call = _native_application(plan)
    application = server.native_application(name, call=call)
    if application is None:
        cannot.append(f"call {name}(), which makes the application")
    # Every server has the working directory in its path, and nothing else.
    if beside := [str(path) for path in plan.paths if path != plan.path]:
        environ = {"PYTHONPATH": os.pathsep.join(beside)} | environ
    return {
        "directory": str(plan.path),
        "environment": environ,
        "arguments": [server.NAME, *(application or [name]), *arguments],
        "cannot": cannot + list(server.LACKS),
    }


def _native_application(plan: LaunchPlan) -> tuple[str, bool]:
    """The application as `module:attribute`, and whether that has to be called."""
    target = plan.application.target
    if target is None:
        return "django.core.asgi:get_asgi_application", True
    module = target.file.stem if target.file else target.module
    attribute = target.attribute
    if attribute is None:
        file = target.file or discovery.module_file(module, plan.paths)
        names = discovery.defined_names(file) if file and file.is_file() else []
        known = (name for name in DEFAULT_ATTRIBUTES if name in names)
        attribute = next(known, DEFAULT_ATTRIBUTES[0])
    return f"{module}:{attribute}", target.call or plan.options.factory


def _native_lines(native: dict[str, Any]) -> list[str]:
    environment = native["environment"]
    words = [_quoted(word) for word in native["arguments"]]
    if all(map(_SHELL_NAME.fullmatch, environment)):
        assigned = [f"{name}={_quoted(value)}" for name, value in environment.items()]
        words = [*assigned, *words]
    else:
        pairs = [_quoted(f"{name}={value}") for name, value in environment.items()]
        words = ["env", *pairs, *words]
    lines = []
    if native["directory"] != str(Path.cwd()):
        lines += [f"  cd {_quoted(native['directory'])} && \\"]
    lines += _wrapped(words)
    lines += ["  It would not:"]
    lines += [f"  - {output.printable(reason)}" for reason in native["cannot"]]
    return lines


_SHELL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def _quoted(word: str) -> str:
    """`word` for a shell, in one line: `$'…'` (POSIX.1-2024) where it has to be."""
    if word.isprintable():
        return shlex.quote(word)
    safe = set(string.printable.encode()) - set(b"'\\" + string.whitespace.encode())
    return "$'{}'".format(
        "".join(
            chr(byte) if byte in safe or byte == ord(" ") else f"\\{byte:03o}"
            for byte in os.fsencode(word)
        )
    )


def _wrapped(words: list[str]) -> list[str]:
    """`words` as one shell command over several lines, a flag beside its value."""
    together: list[str] = []
    for word in words:
        if together and together[-1].startswith("-") and not word.startswith("-"):
            together[-1] += f" {word}"
        else:
            together.append(word)
    lines = ["  "]
    for part in together:
        if len(lines[-1]) + len(part) > output.width() - 4 and lines[-1].strip():
            lines[-1] += "\\"
            lines.append("    ")
        lines[-1] += f"{part} "
    return [line.rstrip() for line in lines]
