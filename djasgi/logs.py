"""One logging configuration for the supervisor, the workers and the servers.

Lines go to standard output, one `write` each, since several processes share it. As
text they are safe to read: whatever a peer can put into them, it cannot begin a new
line or reach the terminal as a control character.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from djasgi.lines import (
    ACCESS,
    JsonFormatter,
    LineHandler,
    PlainFormatter,
    TerminalFormatter,
)
from djasgi.options import Options

_SERVERS = ("uvicorn", "hypercorn", "daphne", "twisted")

# These have a handler; what is below them travels up to it.
_TOPS = ("djasgi", ACCESS, *_SERVERS)

LOGGERS: tuple[str, ...] = (
    *_TOPS,
    "uvicorn.error",
    "uvicorn.access",
    "uvicorn.asgi",
    "hypercorn.error",
    "hypercorn.access",
    "daphne.cli",
    "daphne.server",
    "daphne.http_protocol",
    "daphne.ws_protocol",
)
"""The loggers that djasgi configures, parents before children."""


def configure(
    options: Options, *, worker: int | None = None, color: bool, terminal: bool
) -> None:
    """Give each of `LOGGERS` its handler and level.

    `worker` is the number of this worker, None in the supervisor. The access log does
    not depend on the log level. What servers say at INFO repeats what djasgi says, each
    in its own words: it is shown with the level debug only.
    """
    handler = LineHandler(sys.stdout)
    handler.setFormatter(
        _formatter(options, worker=worker, color=color, terminal=terminal)
    )
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(_level(name, options) if name in _TOPS else logging.NOTSET)
        logger.handlers[:] = [handler] if name in _TOPS else []
        logger.propagate = name not in _TOPS
    _enable()


def configure_after_project(
    options: Options,
    project: Mapping[str, Any] | None,
    *,
    worker: int | None = None,
    color: bool,
    terminal: bool,
) -> None:
    """Configure again, after `django.setup()` has applied the project's `LOGGING`.

    What the project configures wins. For a logger with handlers of the project's, or
    whose entry in `project["loggers"]` states `handlers` or `propagate`, and for those
    below it, where records go is the project's alone: without `propagate`, they go to
    its handlers only. A `level` that an entry states is kept. All else, which
    `disable_existing_loggers` may have switched off, is ours again. `project` is
    `settings.LOGGING`.
    """
    entries = (project or {}).get("loggers") or {}
    before = {name: _state(name) for name in LOGGERS}
    configure(options, worker=worker, color=color, terminal=terminal)
    theirs: set[str] = set()
    for name in LOGGERS:
        logger = logging.getLogger(name)
        entry = entries.get(name) or {}
        handlers, level, propagate = before[name]
        if handlers or "handlers" in entry or "propagate" in entry:
            logger.handlers[:] = handlers
            logger.propagate = entry.get("propagate", propagate and not entry)
            theirs.add(name)
        elif name.rpartition(".")[0] in theirs:
            logger.handlers[:] = []
            logger.propagate = True
            theirs.add(name)
        if "level" in entry or handlers:
            logger.setLevel(level)


def _state(name: str) -> tuple[list[logging.Handler], int, bool]:
    """Handlers that are not ours, level and propagation of a logger."""
    logger = logging.getLogger(name)
    handlers = [h for h in logger.handlers if not isinstance(h, LineHandler)]
    return handlers, logger.level, logger.propagate


def _enable() -> None:
    """Undo what `disable_existing_loggers` has done to `LOGGERS` and those below."""
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.partition(".")[0] in _TOPS:
            logger.disabled = False


def _level(name: str, options: Options) -> int:
    if name == ACCESS:
        return logging.INFO
    level = logging.getLevelNamesMapping()[options.log_level.upper()]
    if name in _SERVERS and level == logging.INFO:
        return logging.WARNING
    return level


def _formatter(
    options: Options, *, worker: int | None, color: bool, terminal: bool
) -> logging.Formatter:
    if options.log_format == "json":
        return JsonFormatter(worker)
    return (TerminalFormatter if terminal else PlainFormatter)(color=color)


def use_color(stream: TextIO | None, environ: Mapping[str, str]) -> bool:
    """Whether to colour what is written to `stream`.

    NO_COLOR (https://no-color.org) wins over FORCE_COLOR, and both over whether the
    stream is a terminal that knows colours. None is a stream that was closed.
    """
    if stream is None:
        return False
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and environ.get("TERM") != "dumb"
