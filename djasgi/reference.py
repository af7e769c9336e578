"""The reference tables, generated from the declarations: for the README and `servers`."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import assert_never

from djasgi import logs, output, servers
from djasgi.errors import EXIT_CODES
from djasgi.options import OPTIONS, SECTIONS, SERVERS, Spec
from djasgi.servers.base import Adapted, Native, Refused, Supplied, Support
from djasgi.servers.differences import DIFFERENCES
from djasgi.supervisor.signals import SIGNALS


def installed(server: str) -> str | None:
    """The installed version of a server, or None."""
    try:
        return version(server)
    except PackageNotFoundError:
        return None


def met(how: Support) -> str:
    """How a server meets an option, in one cell of a table."""
    match how:
        case Native(attribute=attribute):
            return f"native: {attribute}"
        case Supplied(by=by):
            return f"supplied: {by}" if by else "supplied"
        case Adapted(how=means):
            return f"adapted: {means}"
        case Refused(why=why):
            return f"refused: {why}"
    assert_never(how)


def print_servers() -> None:
    """The installed servers, and how each option is met, on standard output."""
    color = logs.use_color(sys.stdout, os.environ)
    output.table(
        ("server", "version"),
        [(name, installed(name) or "not installed") for name in SERVERS],
        color=color,
    )
    print()  # noqa: T201  # one blank line between ideas
    output.table(
        ("option", *SERVERS),
        [
            (OPTIONS[name].flag, *(_kind(servers.support(s)[name]) for s in SERVERS))
            for name in OPTIONS
        ],
        color=color,
    )
    for line in (*_legend(), *_differences()):
        print(line)  # noqa: T201  # the legend of the table above, and what is left


def _kind(how: Support) -> str:
    return type(how).__name__.lower()


def _legend() -> list[str]:
    refused = [
        line
        for name in OPTIONS
        for server in SERVERS
        if isinstance(how := servers.support(server)[name], Refused)
        for line in (
            f"          {OPTIONS[name].flag} on {server}:",
            f"          {how.why}",
        )
    ]
    return [
        "",
        "native    the server's own setting does exactly this",
        "supplied  djasgi does it, the same code for every server",
        "adapted   below ASGI, through the server's internals",
        "refused   cannot be done on this server; asking for it is an error",
        *refused,
        "",
        "How each is met, in words: djasgi servers --format json",
    ]


def _differences() -> list[str]:
    lines = ["", "What still differs:"]
    for difference in DIFFERENCES:
        lines += ["", difference.what]
        lines += [f"  {name:9} {difference.servers[name]}" for name in SERVERS]
        lines += textwrap.wrap(
            difference.meaning, 78, initial_indent="  ", subsequent_indent="  "
        )
    return lines


def servers_json() -> str:
    """The same for machines."""
    return output.json_text(
        {
            "servers": {name: installed(name) for name in SERVERS},
            "options": {
                OPTIONS[name].name: {s: met(servers.support(s)[name]) for s in SERVERS}
                for name in OPTIONS
            },
            "differences": [
                {
                    "what": d.what,
                    "servers": dict(d.servers),
                    "meaning": d.meaning,
                    "probe": d.probe,
                }
                for d in DIFFERENCES
            ],
        }
    )


def options_table() -> str:
    """Every option: flag, variable, key and default."""
    lines: list[str] = []
    for section in SECTIONS:
        specs = [spec for spec in OPTIONS.values() if spec.section == section]
        lines += [f"**{section}**", ""]
        lines += _markdown(
            ("Option", "Variable", "Default", "Meaning"),
            [
                (_flags(spec), _variables(spec), _default(spec), spec.help)
                for spec in specs
            ],
        )
        lines.append("")
    return "\n".join(lines).rstrip()


def _flags(spec: Spec) -> str:
    if spec.argument:
        return f"`{spec.flag}`"
    negative = isinstance(spec.default, bool)
    flags = [f"`{flag}`" for flag in spec.flags]
    return ", ".join([*flags, f"`--no-{spec.name}`"] if negative else flags)


def _variables(spec: Spec) -> str:
    return ", ".join(f"`{n}`" for n in (spec.variable, spec.platform) if n)


def _default(spec: Spec) -> str:
    return "" if spec.default in (None, ()) else f"`{spec.show(spec.default)}`"


def support_table() -> str:
    """How each server meets each option."""
    return "\n".join(
        _markdown(
            ("Option", *SERVERS),
            [
                (f"`{OPTIONS[n].flag}`", *(met(servers.support(s)[n]) for s in SERVERS))
                for n in OPTIONS
            ],
        )
    )


def checks_table() -> str:
    """Every check of `djasgi check`: id, level, what it finds, when it is run."""
    from djasgi.checks.base import Needs, all_checks

    where = {
        Needs.FILES: "the files",
        Needs.SETTINGS: "the settings",
        Needs.LOADED: "the project",
        Needs.SERVED: "a worker: `--probe`",
    }
    return "\n".join(
        _markdown(
            ("Id", "Level", "Finds", "Looks at"),
            [
                (
                    f"`{check.id}`",
                    check.level.word,
                    check.title,
                    where[check.needs] + (", in production" if check.deploy else ""),
                )
                for check in all_checks().values()
            ],
        )
    )


def differences_table() -> str:
    """What still differs between the servers, and what it means for an application."""
    return "\n".join(
        _markdown(
            ("", *SERVERS, "What it means"),
            [
                (d.what, *(d.servers[s] for s in SERVERS), d.meaning)
                for d in DIFFERENCES
            ],
        )
    )


def exit_codes_table() -> str:
    """What the exit status means."""
    return "\n".join(
        _markdown(
            ("Code", "Meaning"),
            [(str(int(code)), text) for code, text in EXIT_CODES.items()],
        )
    )


def signals_table() -> str:
    """What djasgi does when it gets a signal."""
    return "\n".join(
        _markdown(
            ("Signal", "What happens"),
            [(f"`{number.name}`", text) for number, text in SIGNALS.items()],
        )
    )


def _markdown(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(columns) + " |"
    yield "| " + " | ".join("---" for _ in columns) + " |"
    for row in cells:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
