"""How a log record is written: escaped, as text or JSON, with one `write`."""

from __future__ import annotations

import json
import logging
import os
import re
import time
import traceback
from functools import lru_cache
from typing import Any, TextIO

ACCESS = "djasgi.access"
"""The logger of the access log."""

_FIELDS = (
    "client",
    "method",
    "path",
    "status",
    "bytes",
    "duration",
    "http_version",
    "request_id",
    "scheme",
    "event",
)

# C0, DEL and C1; line and paragraph separators; what changes the direction of text;
# surrogates, which stand for bytes that are not UTF-8.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


_SURROGATE = re.compile("[\ud800-\udfff]")


def escape(text: str) -> str:
    r"""`text` without what could forge a line or steer a terminal: `\x1b`, `\u2028`."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(_escaped, text)


_BYTE = 0xFF
_ESCAPED_BYTES = range(0xDC80, 0xDD00)  # of the error handler surrogateescape


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code in _ESCAPED_BYTES:
        code -= 0xDC00
    short = {9: "\\t", 10: "\\n", 13: "\\r"}.get(code)
    if short is not None:
        return short
    return f"\\x{code:02x}" if code <= _BYTE else f"\\u{code:04x}"


class LineHandler(logging.Handler):
    """Writes each record with one `write`, past the buffer of the stream.

    A reader that has gone away, or a full disk, costs the line and nothing else.
    """

    def __init__(self, stream: TextIO | None) -> None:
        """`stream` is None in a process that was started without standard output."""
        super().__init__()
        self.stream = stream
        self.gone = stream is None
        self._fd = _descriptor(stream)

    def emit(self, record: logging.LogRecord) -> None:
        if self.gone:
            return
        try:
            line = self.format(record) + "\n"
        except Exception:  # noqa: BLE001 - as logging wants it: reported, never raised
            self.handleError(record)
            return
        try:
            self._write(line)
        except (BrokenPipeError, ValueError):
            self.gone = True  # ValueError: the stream was closed
        except OSError:
            pass

    def _write(self, line: str) -> None:
        if self._fd is None:
            assert self.stream is not None  # noqa: S101 - or `gone` were true
            self.stream.write(line)
            self.stream.flush()
            return
        data = memoryview(line.encode("utf-8", "backslashreplace"))
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except BlockingIOError:
                # Whoever shares the terminal has made it non-blocking.
                if not _writable(self._fd):
                    return


# A reader that is stuck for longer loses lines rather than stop the event loop.
_STUCK_MILLISECONDS = 1000


def _writable(fd: int) -> bool:
    import select

    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(_STUCK_MILLISECONDS))


def _descriptor(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def _exception(record: logging.LogRecord) -> str:
    """The traceback of a record, without the values of variables; "" if it has none."""
    text = ""
    if record.exc_info and record.exc_info[1] is not None:
        text = "".join(traceback.format_exception(*record.exc_info))
    if record.stack_info:
        text += record.stack_info
    return text.rstrip("\n")


class _TextFormatter(logging.Formatter):
    """One line for a record; the lines of a traceback are indented.

    So a line that begins at the margin is never part of a message.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = self.line(record)
        text = _exception(record)
        if text:
            below = (f"  {escape(part)}" for part in text.split("\n"))
            line = "\n".join((line, *below))
        return line

    def line(self, record: logging.LogRecord) -> str:
        raise NotImplementedError


class PlainFormatter(_TextFormatter):
    """For pipes and files: time (ISO 8601, UTC, milliseconds), level, message.

    With `color`, which is for those who force it, the level is painted.
    """

    def __init__(self, *, color: bool = False) -> None:
        super().__init__()
        self.color = color

    def line(self, record: logging.LogRecord) -> str:
        level = f"{record.levelname:<7}"
        if self.color:
            level = _painted(level, _LEVEL_COLORS.get(record.levelno))
        return f"{_utc(record.created)} {level} {escape(record.getMessage())}"


_encode = json.JSONEncoder(separators=(",", ":")).encode


class JsonFormatter(logging.Formatter):
    """One object a line, ASCII; the same fields under each server."""

    def __init__(self, worker: int | None) -> None:
        super().__init__()
        self.worker = worker

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
            "worker": self.worker,
        }
        if record.name == ACCESS:
            data = record.__dict__
            fields.update((name, data[name]) for name in _FIELDS if name in data)
        text = _exception(record)
        if text:
            fields["exception"] = text
        for name, value in fields.items():
            if isinstance(value, str) and not value.isascii():
                # Valid in JSON, but more than many of its readers take.
                fields[name] = _SURROGATE.sub(_escaped, value)
        return _encode(fields).replace(
            "\x7f", "\\u007f"
        )  # DEL, which JSON leaves as it is


_LEVEL_COLORS = {
    logging.DEBUG: "2",
    logging.WARNING: "33",
    logging.ERROR: "31",
    logging.CRITICAL: "1;31",
}
_STATUS_COLORS = {1: "36", 2: "32", 3: "36", 4: "33", 5: "31"}

_WIDTH = 80
_NARROW = 60
_BEFORE_PATH = 17  # time, method and the spaces around them
_STATUS_WIDTH = 5
_FIGURES_WIDTH = 21
_LEAST_PATH = 12


# Of the terminal's time zone, in seconds, taken before Django sets TZ to the project's
# TIME_ZONE in the worker.
_OFFSET = time.localtime().tm_gmtoff


class TerminalFormatter(_TextFormatter):
    """For people at a terminal: local time, columns, at most 80 wide.

    Below 60 columns the figures are left out; a path is never cut.
    """

    def __init__(self, *, color: bool) -> None:
        super().__init__()
        self.color = color

    def line(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.gmtime(record.created + _OFFSET))
        if record.name == ACCESS and hasattr(record, "duration"):
            return f"{clock}  {self._access(record.__dict__)}"
        level = ""
        if record.levelno != logging.INFO:
            level = self._paint(
                record.levelname.lower(), _LEVEL_COLORS.get(record.levelno)
            )
            level += "  "
        return f"{clock}  {level}{escape(record.getMessage())}"

    def _access(self, data: dict[str, Any]) -> str:
        columns = _columns()
        wide = columns >= _NARROW
        width = min(columns, _WIDTH) - _BEFORE_PATH - _STATUS_WIDTH
        width = max(width - (_FIGURES_WIDTH if wide else 0), _LEAST_PATH)
        opened = data["event"] == "open"
        status = "open" if opened else str(data["status"])
        parts = [
            f"{escape(data['method']):<6} {escape(data['path']):<{width}} ",
            self._paint(status, _STATUS_COLORS.get(_severity(data["status"]))),
        ]
        if wide and not opened:
            parts.append(" " * (4 - len(status)))
            parts.append(f"{_size(data['bytes']):>10} {_time(data['duration']):>10}")
        return "".join(parts)

    def _paint(self, text: str, color: str | None) -> str:
        return _painted(text, color) if self.color else text


def _painted(text: str, color: str | None) -> str:
    return f"\x1b[{color}m{text}\x1b[0m" if color else text


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size((_WIDTH, 24)).columns


_CLEAN_CLOSES = (1000, 1001, 1005)
_CLOSE_CODES = 1000
_APPLICATION_CODES = 4000


def _severity(status: int) -> int:
    """The first digit of a status; for a close code, of the status it is like."""
    if status in _CLEAN_CLOSES:
        return 2
    if status >= _APPLICATION_CODES:
        return 4
    return 5 if status >= _CLOSE_CODES else status // 100


_UNITS = ("B", "kB", "MB", "GB")
_THOUSAND = 1000


def _size(number: int) -> str:
    """`number` bytes as people write it: `10.9 kB`."""
    if number < _THOUSAND:
        return f"{number} B"
    size = float(number)
    unit = 0
    while size >= _THOUSAND - 0.05 and unit < len(_UNITS) - 1:
        size /= _THOUSAND
        unit += 1
    return f"{size:.1f} {_UNITS[unit]}"


def _time(milliseconds: float) -> str:
    if milliseconds < _THOUSAND - 0.05:
        return f"{milliseconds:.1f} ms"
    return f"{milliseconds / _THOUSAND:.1f} s"


def _utc(created: float) -> str:
    seconds = int(created)
    return f"{_second(seconds)}.{int((created - seconds) * 1000):03d}Z"


@lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
