"""The log lines: their forms, what cannot be forged, and whose configuration wins."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import logging.config
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest
from django.conf import settings
from django.utils.log import configure_logging
from hypothesis import given, strategies as st

from djasgi.lines import (
    JsonFormatter,
    LineHandler,
    PlainFormatter,
    TerminalFormatter,
    escape,
)
from djasgi.logs import LOGGERS, configure, configure_after_project, use_color
from djasgi.options import Options

if not settings.configured:
    settings.configure()

CONTROL = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)
NAMES = (*LOGGERS, "djasgi.child", "django", "django.server")


@pytest.fixture(autouse=True)
def _loggers() -> Iterator[None]:
    """Leave every logger as it was."""
    # All of them: a project's configuration disables those that it does not name.
    names = {*NAMES, *logging.root.manager.loggerDict}
    loggers = [logging.getLogger(), *map(logging.getLogger, names)]
    before = [
        (each, each.handlers[:], each.level, each.propagate, each.disabled)
        for each in loggers
    ]
    yield
    for each, handlers, level, propagate, disabled in before:
        each.handlers[:] = handlers
        each.setLevel(level)
        each.propagate = propagate
        each.disabled = disabled


class Output:
    """Stands for standard output: a file with a descriptor."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stream = path.open("a+")

    def configure(self, **options: Any) -> None:
        with contextlib.redirect_stdout(self.stream):
            configure(Options(**options), color=False, terminal=False)

    def configure_after(self, project: dict[str, Any] | None) -> None:
        with contextlib.redirect_stdout(self.stream):
            configure_after_project(Options(), project, color=False, terminal=False)

    def lines(self) -> list[tuple[str, str]]:
        """Level and logger of each line since the last call."""
        text = self.path.read_text()
        self.stream.truncate(0)
        return [(words[1], words[3]) for words in map(str.split, text.splitlines())]


@pytest.fixture
def stdout(tmp_path: Path) -> Iterator[Output]:
    output = Output(tmp_path / "stdout")
    with output.stream:
        yield output


def record(
    message: str = "hello", level: int = logging.INFO, name: str = "djasgi", **more: Any
) -> logging.LogRecord:
    made = logging.LogRecord(
        name, level, "", 0, message, (), more.pop("exc_info", None)
    )
    made.created = 1_700_000_000.25
    made.__dict__.update(more)
    return made


ACCESS = {
    "name": "djasgi.access",
    "client": "192.0.2.1",
    "method": "GET",
    "path": "/favicon.ico",
    "status": 404,
    "bytes": 2190,
    "duration": 1.234,
    "http_version": "1.1",
    "request_id": "abc",
    "scheme": "https",
    "event": "response",
}


def access(**more: Any) -> logging.LogRecord:
    return record("192.0.2.1 GET ...", **{**ACCESS, **more})


def raised(message: str) -> Any:
    """What `sys.exc_info` gives for an error below a frame with a secret in it."""

    def fail(password: str) -> None:
        raise LookupError(message)

    try:
        secret = f"hunter{1 + 1}"
        fail(secret)
    except LookupError:
        return sys.exc_info()


class TestForms:
    def test_plain_is_time_level_message(self) -> None:
        line = PlainFormatter().format(record("ready", logging.WARNING))

        assert line == "2023-11-14T22:13:20.250Z WARNING ready"

    def test_json_has_these_fields(self) -> None:
        data = json.loads(JsonFormatter(3).format(record("ready")))

        assert data == {
            "time": "2023-11-14T22:13:20.250Z",
            "level": "info",
            "logger": "djasgi",
            "message": "ready",
            "pid": os.getpid(),
            "worker": 3,
        }

    def test_json_of_an_access_has_its_fields(self) -> None:
        data = json.loads(JsonFormatter(None).format(access(client=None)))

        assert data["worker"] is None
        assert {name: data[name] for name in ACCESS if name != "name"} == {
            **{name: value for name, value in ACCESS.items() if name != "name"},
            "client": None,
        }

    def test_json_has_the_exception_as_one_string_without_locals(self) -> None:
        line = JsonFormatter(None).format(record(exc_info=raised("no\nrow")))

        data = json.loads(line)
        assert "\n" not in line
        assert data["exception"].startswith("Traceback (most recent call last):\n")
        assert data["exception"].endswith("LookupError: no\nrow")
        assert "hunter2" not in data["exception"]

    def test_text_has_the_traceback_indented_below(self) -> None:
        text = PlainFormatter().format(record("failed", exc_info=raised("no row")))

        first, *below = text.split("\n")
        assert first.endswith(" failed")
        assert below[0] == "  Traceback (most recent call last):"
        assert below[-1] == "  LookupError: no row"

    def test_a_stack_is_shown_like_a_traceback(self) -> None:
        made = record("where", stack_info="Stack (most recent call last):\n  File x")

        text = PlainFormatter().format(made)

        assert text.endswith(" where\n  Stack (most recent call last):\n    File x")

    def test_json_keeps_other_alphabets_and_needs_only_ascii(self) -> None:
        line = JsonFormatter(None).format(record("größe 漢字 \x7f"))

        assert line.isascii()
        assert json.loads(line)["message"] == "größe 漢字 \x7f"


class TestTerminal:
    @pytest.fixture(autouse=True)
    def _columns(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "80")

    def line(self, made: logging.LogRecord, *, color: bool = False) -> str:
        """Without the time, which is local."""
        text = TerminalFormatter(color=color).format(made)
        assert re.match(r"\d\d:\d\d:\d\d  ", text)
        return text[10:]

    def test_messages_have_a_level_word_unless_they_inform(self) -> None:
        assert self.line(record("ready in 0.41 s")) == "ready in 0.41 s"
        assert (
            self.line(record("DEBUG is on", logging.WARNING)) == "warning  DEBUG is on"
        )

    def test_access_lines_are_aligned_and_80_wide(self) -> None:
        lines = [
            self.line(access()),
            self.line(access(method="DELETE", path="/", bytes=10_940, duration=41.0)),
            self.line(access(bytes=999_960, duration=12_345.6)),
        ]

        assert [line.split() for line in lines] == [
            ["GET", "/favicon.ico", "404", "2.2", "kB", "1.2", "ms"],
            ["DELETE", "/", "404", "10.9", "kB", "41.0", "ms"],
            ["GET", "/favicon.ico", "404", "1.0", "MB", "12.3", "s"],
        ]
        assert {len(line) for line in lines} == {70}
        assert {line.index("404") for line in lines} == {45}

    @pytest.mark.parametrize("columns", [60, 66, 79])
    def test_lines_fit_narrower_terminals(
        self, columns: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))

        line = self.line(access())

        assert len(line) <= columns - 10
        assert "2.2 kB" in line

    def test_below_60_columns_the_figures_go(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "59")

        line = self.line(access())

        assert line.split() == ["GET", "/favicon.ico", "404"]
        assert len(line) <= 49

    def test_a_long_path_is_not_cut(self) -> None:
        assert "/" + "a" * 200 + " 404" in self.line(access(path="/" + "a" * 200))

    def test_websockets(self) -> None:
        opened = self.line(access(method="WS", path="/chat/", status=101, event="open"))
        closed = self.line(
            access(method="WS", path="/chat/", status=1000, event="close")
        )

        assert opened.split() == ["WS", "/chat/", "open"]
        assert closed.split() == ["WS", "/chat/", "1000", "2.2", "kB", "1.2", "ms"]
        assert opened.index("open") == closed.index("1000")

    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (200, 32),
            (302, 36),
            (404, 33),
            (500, 31),
            (1000, 32),
            (4001, 33),
            (1011, 31),
        ],
    )
    def test_only_status_and_level_are_coloured(self, status: int, code: int) -> None:
        line = self.line(access(status=status), color=True)
        warning = self.line(record("no", logging.WARNING), color=True)

        assert re.findall(r"\x1b\[(\d+)m(.*?)\x1b\[0m", line) == [
            (str(code), str(status))
        ]
        assert line.count("\x1b") == 2
        assert warning == "\x1b[33mwarning\x1b[0m  no"


class TestForging:
    @pytest.mark.parametrize(
        ("text", "escaped"),
        [
            ("/plain path", "/plain path"),
            ("größe 漢字", "größe 漢字"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\x1b[31m\x7f\x85", "\\x1b[31m\\x7f\\x85"),
            ("\u2028\u2029\u202e\u2066", "\\u2028\\u2029\\u202e\\u2066"),
            (b"\xff".decode("utf-8", "surrogateescape"), "\\xff"),
            ("\ud800", "\\ud800"),
        ],
    )
    def test_escaping(self, text: str, escaped: str) -> None:
        assert escape(text) == escaped

    @given(text=st.text(st.characters()))
    def test_what_is_escaped_is_safe_and_encodable(self, text: str) -> None:
        result = escape(text)

        assert not CONTROL.search(result)
        assert "\n" not in result
        result.encode()

    @given(text=st.text(st.characters()), error=st.text(st.characters()))
    @pytest.mark.parametrize(
        "formatter",
        [PlainFormatter(), TerminalFormatter(color=False), JsonFormatter(1)],
        ids=["plain", "terminal", "json"],
    )
    def test_no_line_holds_a_control_character_or_begins_unasked(
        self, formatter: logging.Formatter, text: str, error: str
    ) -> None:
        made = record("%s", exc_info=raised(error))
        made.args = (text,)

        output = formatter.format(made)

        assert not CONTROL.search(output)
        output.encode()
        first, *below = output.split("\n")
        assert first
        assert all(line.startswith("  ") for line in below)
        if isinstance(formatter, JsonFormatter):
            assert not below
            assert "message" in json.loads(output)

    @given(text=st.text(st.characters()))
    def test_access_fields_are_escaped_even_if_a_server_lets_them_through(
        self, text: str
    ) -> None:
        for formatter in (TerminalFormatter(color=False), JsonFormatter(1)):
            output = formatter.format(access(path=text, method=text, client=text))
            assert not CONTROL.search(output)
            assert "\n" not in output


class TestHandler:
    def test_a_line_is_one_write(self, monkeypatch: pytest.MonkeyPatch) -> None:
        read, write = os.pipe()
        writes = []
        original = os.write

        def counting(fd: int, data: Any) -> int:
            writes.append(bytes(data))
            return original(fd, data)

        monkeypatch.setattr(os, "write", counting)
        with os.fdopen(read, "rb"), os.fdopen(write, "w") as stream:
            handler = LineHandler(stream)
            handler.setFormatter(PlainFormatter())
            handler.handle(record("one", exc_info=raised("no")))

        assert len(writes) == 1
        assert writes[0].endswith(b"LookupError: no\n")

    def test_a_reader_that_is_gone_ends_the_lines_and_nothing_else(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "w") as stream:
            handler = LineHandler(stream)
            handler.handle(record())
            assert handler.gone
            handler.handle(record())

        assert capfd.readouterr() == ("", "")

    def test_a_full_disk_costs_the_line(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with Path("/dev/full").open("w") as stream:
            handler = LineHandler(stream)
            handler.handle(record())

            assert not handler.gone
        assert capfd.readouterr() == ("", "")

    def test_a_pipe_that_somebody_made_non_blocking_loses_nothing(self) -> None:
        read, write = os.pipe()
        os.set_blocking(write, False)
        chunks: list[bytes] = []

        def drain() -> None:
            with os.fdopen(read, "rb") as stream:
                chunks.append(stream.read())

        with os.fdopen(write, "w") as stream:
            handler = LineHandler(stream)
            reader = threading.Thread(target=drain)
            reader.start()
            handler.handle(record("x" * 500_000))
        reader.join()

        assert chunks == [b"x" * 500_000 + b"\n"]

    def test_a_reader_that_is_stuck_costs_lines_and_does_not_hang(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("djasgi.lines._STUCK_MILLISECONDS", 1)
        read, write = os.pipe()
        os.set_blocking(write, False)
        with os.fdopen(read, "rb") as reader, os.fdopen(write, "w") as stream:
            handler = LineHandler(stream)
            handler.handle(record("x" * 1_000_000))
            stream.close()
            written = len(reader.read())

        assert 0 < written < 1_000_000
        assert not handler.gone

    def test_without_standard_output_nothing_is_written(self) -> None:
        """Descriptor 1 may be somebody's socket then."""
        handler = LineHandler(None)

        handler.handle(record())

        assert handler.gone

    def test_a_stream_without_descriptor_is_written_to(self) -> None:
        stream = io.StringIO()

        LineHandler(stream).handle(record("hello"))

        assert stream.getvalue() == "hello\n"

    def test_a_closed_stream_ends_the_lines(self) -> None:
        stream = io.StringIO()
        handler = LineHandler(stream)
        stream.close()

        handler.handle(record())

        assert handler.gone

    def test_a_message_that_cannot_be_formatted_is_reported_not_raised(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        made = record("%d")
        made.args = ("x",)
        handler = LineHandler(io.StringIO())

        handler.handle(made)

        assert "Logging error" in capfd.readouterr().err

    def test_lines_of_several_processes_stay_whole(self, tmp_path: Path) -> None:
        program = (
            "import logging, os, sys\n"
            "from djasgi.logs import configure\n"
            "from djasgi.options import Options\n"
            "configure(Options(), worker=1, color=False, terminal=False)\n"
            "for _ in range(3): os.fork()\n"
            "log = logging.getLogger('djasgi')\n"
            "for n in range(50): log.info('x' * 3000)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            lines = process.stdout.read().splitlines()

        assert len(lines) == 8 * 50
        assert {line[25:] for line in lines} == {"INFO    " + "x" * 3000}

    def test_a_broken_pipe_is_silent_to_the_end_of_the_process(self) -> None:
        program = (
            "import logging, sys\n"
            "from djasgi.logs import configure\n"
            "from djasgi.options import Options\n"
            "configure(Options(), worker=1, color=False, terminal=False)\n"
            "sys.stdin.read()\n"
            "for n in range(50): logging.getLogger('djasgi').info('x')\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            process.stdout.close()
            process.stdout = None
            _, errors = process.communicate(b"")

        assert (process.returncode, errors) == (0, b"")


def say_everything() -> None:
    for name in LOGGERS:
        for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
            logging.getLogger(name).log(level, "from %s", name)


class TestConfiguration:
    @pytest.mark.parametrize(
        ("level", "ours", "servers"),
        [
            ("debug", {"DEBUG", "INFO", "WARNING", "ERROR"}, None),
            ("info", {"INFO", "WARNING", "ERROR"}, {"WARNING", "ERROR"}),
            ("warning", {"WARNING", "ERROR"}, None),
            ("error", {"ERROR"}, None),
        ],
    )
    def test_levels(
        self, stdout: Output, level: str, ours: set[str], servers: set[str] | None
    ) -> None:
        """Every logger obeys; the servers' chatter needs debug; access is apart."""
        stdout.configure(log_level=level)

        say_everything()

        expected = {
            (each, name)
            for name in LOGGERS
            for each in (
                {"INFO", "WARNING", "ERROR"}
                if name == "djasgi.access"
                else ours
                if name == "djasgi"
                else servers or ours
            )
        }
        assert set(stdout.lines()) == expected

    def test_each_record_is_one_line_and_not_the_roots_too(
        self, stdout: Output, caplog: pytest.LogCaptureFixture
    ) -> None:
        stdout.configure()

        say_everything()

        found = stdout.lines()
        assert len(found) == len(set(found)) > len(LOGGERS)
        assert caplog.records == []

    @pytest.mark.parametrize(
        ("options", "terminal", "kind"),
        [
            ({"log_format": "json"}, True, JsonFormatter),
            ({}, True, TerminalFormatter),
            ({}, False, PlainFormatter),
        ],
    )
    def test_the_form_of_the_lines(
        self, options: dict[str, Any], terminal: bool, kind: type
    ) -> None:
        configure(Options(**options), worker=2, color=True, terminal=terminal)

        (handler,) = logging.getLogger("djasgi").handlers
        assert type(handler.formatter) is kind
        if isinstance(handler.formatter, JsonFormatter):
            assert handler.formatter.worker == 2

    def test_configuring_twice_is_configuring_once(self, stdout: Output) -> None:
        stdout.configure()
        stdout.configure()

        logging.getLogger("djasgi").info("from djasgi")

        assert stdout.lines() == [("INFO", "djasgi")]


class Theirs(logging.Handler):
    """A handler of the project's."""

    seen: list[tuple[str, str]]

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append((record.levelname, record.name))


@pytest.fixture
def theirs() -> list[tuple[str, str]]:
    Theirs.seen = []
    return Theirs.seen


def project(stdout: Output, **logging_settings: Any) -> None:
    """What a worker does around `django.setup()`."""
    stdout.configure()
    configured = {
        "version": 1,
        "handlers": {"theirs": {"()": Theirs}},
        **logging_settings,
    }
    configure_logging("logging.config.dictConfig", configured)
    stdout.configure_after(configured)


class TestProject:
    @pytest.mark.parametrize("disable", [True, False])
    def test_a_logging_that_does_not_name_ours_changes_nothing(
        self, stdout: Output, theirs: list[tuple[str, str]], disable: bool
    ) -> None:
        stdout.configure()
        say_everything()
        logging.getLogger("djasgi.child").info("from djasgi.child")
        before = stdout.lines()

        project(
            stdout,
            disable_existing_loggers=disable,
            root={"handlers": ["theirs"], "level": "DEBUG"},
            loggers={"django": {"handlers": ["theirs"]}},
        )
        say_everything()
        logging.getLogger("djasgi.child").info("from djasgi.child")

        assert stdout.lines() == before
        assert theirs == []

    @pytest.mark.parametrize(
        "name", ["djasgi.access", "uvicorn.error", "hypercorn.access", "daphne"]
    )
    def test_a_logger_that_it_names_is_the_projects(
        self, stdout: Output, theirs: list[tuple[str, str]], name: str
    ) -> None:
        entry = {"handlers": ["theirs"], "level": "ERROR", "propagate": False}
        project(stdout, loggers={name: entry})

        say_everything()

        assert ("ERROR", name) in theirs
        assert ("WARNING", name) not in theirs
        ours = stdout.lines()
        assert name not in {each for _, each in ours}
        assert ("ERROR", "djasgi") in ours

    @pytest.mark.parametrize(
        ("name", "below"),
        [("djasgi", "djasgi.access"), ("uvicorn", "uvicorn.error")],
    )
    def test_what_is_below_a_named_logger_follows_it(
        self, stdout: Output, theirs: list[tuple[str, str]], name: str, below: str
    ) -> None:
        project(stdout, loggers={name: {"handlers": ["theirs"], "level": "INFO"}})

        say_everything()

        assert {("INFO", name), ("INFO", below)} <= set(theirs)
        assert not {line for line in set(stdout.lines()) if line[1] in (name, below)}

    def test_below_a_named_logger_another_may_be_named(
        self, stdout: Output, theirs: list[tuple[str, str]]
    ) -> None:
        project(
            stdout,
            loggers={
                "djasgi": {"handlers": ["theirs"], "propagate": False},
                "djasgi.access": {"handlers": [], "propagate": False},
            },
        )

        say_everything()

        assert {name for _, name in theirs} == {"djasgi"}

    def test_an_entry_with_a_level_only_changes_the_level_only(
        self, stdout: Output, theirs: list[tuple[str, str]]
    ) -> None:
        project(stdout, loggers={"djasgi": {"level": "ERROR"}})

        say_everything()

        ours = {line for line in set(stdout.lines()) if line[1].startswith("djasgi")}
        assert ours == {
            ("ERROR", "djasgi"),
            *((level, "djasgi.access") for level in ("INFO", "WARNING", "ERROR")),
        }

    def test_propagating_means_that_the_roots_handlers_have_it(
        self, stdout: Output, theirs: list[tuple[str, str]]
    ) -> None:
        project(
            stdout,
            root={"handlers": ["theirs"]},
            loggers={"djasgi": {"propagate": True}},
        )

        say_everything()

        assert {("INFO", "djasgi"), ("INFO", "djasgi.access")} <= set(theirs)
        assert "djasgi" not in {name for _, name in stdout.lines()}

    @pytest.mark.parametrize("name", ["djasgi.access", "uvicorn.error", "djasgi"])
    def test_handlers_without_propagate_are_all_there_is(
        self, stdout: Output, theirs: list[tuple[str, str]], name: str
    ) -> None:
        project(
            stdout,
            root={"handlers": ["theirs"]},
            loggers={name: {"handlers": ["theirs"]}},
        )

        say_everything()

        assert theirs.count(("ERROR", name)) == 1
        assert ("ERROR", name) not in stdout.lines()

    def test_a_handler_given_in_code_wins_as_well(
        self, stdout: Output, theirs: list[tuple[str, str]]
    ) -> None:
        """LOGGING_CONFIG = None, and the settings configure logging themselves."""
        stdout.configure()
        logger = logging.getLogger("djasgi")
        logger.handlers[:] = [Theirs()]
        logger.setLevel(logging.ERROR)

        stdout.configure_after(None)
        say_everything()

        assert ("ERROR", "djasgi") in theirs
        assert ("WARNING", "djasgi") not in theirs
        assert not {line for line in set(stdout.lines()) if line[1] == "djasgi"}


class Terminal(io.StringIO):
    def __init__(self, *, tty: bool) -> None:
        super().__init__()
        self.tty = tty

    def isatty(self) -> bool:
        return self.tty


@pytest.mark.parametrize(
    ("tty", "environ", "color"),
    [
        (True, {}, True),
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (True, {"TERM": "dumb", "FORCE_COLOR": "1"}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (False, {"FORCE_COLOR": ""}, False),
    ],
)
def test_use_color(tty: bool, environ: dict[str, str], color: bool) -> None:
    stream: TextIO = Terminal(tty=tty)

    assert use_color(stream, environ) is color
