"""What people see on a terminal. The only module that knows rich."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from djasgi.errors import DjasgiError
    from djasgi.plan import LaunchPlan

MASK = "•" * 8
_SECRET = re.compile(
    r"key|secret|token|passw|pwd|dsn|credential|auth|cookie|salt|private", re.IGNORECASE
)
_CREDENTIALS = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)\S+@", re.IGNORECASE)

DIM = "2"
BOLD = "1"
CYAN = "36"
YELLOW = "33"


def style(text: str, code: str, *, color: bool) -> str:
    """`text` in a colour or weight (ECMA-48 SGR), or as it is."""
    return f"\x1b[{code}m{text}\x1b[0m" if color and text else text


def masked(name: str, value: str) -> str:
    """`value` for printing: hidden when `name` or the value itself is a secret.

    The one masking function of every output. Names that speak of keys, tokens or
    passwords are hidden whole, credentials in a URL are cut out of it.
    """
    if _SECRET.search(name):
        return MASK
    return _CREDENTIALS.sub(rf"\g<scheme>{MASK}@", value)


def printable(text: str) -> str:
    """`text` without control characters, so that a name cannot steer a terminal."""
    return "".join(
        char if char.isprintable() else f"\\x{ord(char):02x}" for char in text
    )


def width() -> int:
    """The columns of the terminal, at most 80."""
    return min(shutil.get_terminal_size().columns, 80)


def rows(
    entries: Iterable[tuple[str, str, str]], *, color: bool, label: int = 14
) -> list[str]:
    """Lines of label, value and dim origin, aligned when they fit in 80 columns.

    `label` is the least width of the first column.
    """
    entries = [(printable(a), printable(b), printable(c)) for a, b, c in entries]
    label = max([label, *(len(name) + 2 for name, _, _ in entries)])
    room = max((len(value) for _, value, _ in entries), default=0) + 2
    widest = max((len(origin) for _, _, origin in entries), default=0)
    room = min(room, max(width() - 2 - label - widest, 16))
    lines = []
    for name, value, origin in entries:
        text = f"  {name:<{label}}{value}"
        if not origin:
            lines.append(text.rstrip())
        elif len(value) < room:
            lines.append(
                f"  {name:<{label}}{value:<{room}}{style(origin, DIM, color=color)}"
            )
        else:
            lines.append(text)
            lines.append(f"  {'':<{label}}{style(origin, DIM, color=color)}")
    return lines


def report(error: DjasgiError) -> None:
    """Print the error for people on standard error, if there is one to print on.

    What comes from files, names and the user's exceptions cannot steer a terminal.
    """
    lines = [printable(line.expandtabs()) for line in error.details.split("\n")]
    lines += [f"Error: {printable(error.message)}", printable(error.hint)]
    if sys.stderr is not None:
        with suppress(OSError):
            print("\n".join(lines).strip("\n"), file=sys.stderr, flush=True)  # noqa: T201


def warn(text: str) -> None:
    """Print a warning for people on standard error, where there is no log."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(f"Warning: {printable(text)}", file=sys.stderr, flush=True)  # noqa: T201


def panel(
    plan: LaunchPlan,
    addresses: Sequence[str],
    version: str,
    workers: int,
    *,
    debug: bool,
    exposed: bool,
    color: bool,
) -> str:
    """What is shown when the first workers are ready."""
    first, *others = addresses
    name = printable(plan.path.name)
    head = f"  {style(name, BOLD, color=color)}   {style(first, CYAN, color=color)}"
    more = [f"  {'':<{len(name)}}   {style(a, CYAN, color=color)}" for a in others]
    lines = ["", head, *more, ""]
    lines += rows(
        [
            (label, value, origin)
            for label, value, origin in summary(plan, version, workers)
        ],
        color=color,
    )
    notices = debug_notice(plan, debug=debug, exposed=exposed)
    lines += ["", *(f"  {line}" for line in notices)] if notices else []
    return "\n".join([*lines, ""])


def summary(plan: LaunchPlan, version: str, workers: int) -> list[tuple[str, str, str]]:
    """Application, environment, settings and server, each with its origin."""
    server = plan.options.server
    count = f"{workers} worker{'' if workers == 1 else 's'}"
    if workers == 0:
        count = "in this process"
    entries = [("application", application(plan), plan.application.origin)]
    if plan.environment is not None:
        entries.append(("environment", plan.environment.value, plan.environment.origin))
    if plan.settings is not None:
        entries.append(("settings", plan.settings.value, plan.settings.origin))
    origin = plan.values["server"].origin
    entries.append(("server", f"{server} {version}, {count}", origin))
    return entries


def application(plan: LaunchPlan) -> str:
    """The application as people write it."""
    target = plan.application.target
    if target is None:
        return "Django's own"
    module = str(target.file) if target.file else target.module
    if target.file and target.file.is_relative_to(plan.path):
        module = str(target.file.relative_to(plan.path))
    name = f"{module}:{target.attribute}" if target.attribute else module
    return f"{name}()" if target.call else name


def debug_notice(plan: LaunchPlan, *, debug: bool, exposed: bool) -> list[str]:
    """The lines about DEBUG, stronger when others can reach the address."""
    if not debug:
        return []
    if exposed:
        return [
            "DEBUG is on and this address can be reached from other machines:",
            "whoever causes an error sees your settings. Serve with another environment,",
            "or on 127.0.0.1.",
        ]
    notice = ["DEBUG is on: fine here, not on the internet."]
    if plan.environment is None:
        notice.append("In production: djasgi serve --env production")
    return notice


def say(text: str) -> None:
    """Print a line on standard output."""
    print(text)  # noqa: T201  # the one place that does


def table(
    columns: Sequence[str], lines: Iterable[Sequence[str]], *, color: bool
) -> None:
    """Print a table, wrapped to the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None, highlight=False)
    header = "bold" if color else ""
    drawn = Table(box=None, pad_edge=False, show_edge=False, header_style=header)
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for line in lines:
        # Text, never markup: what is shown may contain brackets of its own.
        drawn.add_row(*(Text(cell) for cell in line))
    console.print(drawn)


def json_text(value: Mapping[str, Any]) -> str:
    """`value` for machines."""
    import json

    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
