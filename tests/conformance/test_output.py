"""What a person sees at a terminal, and what a pipe gets, on each server."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from djasgi.options import SERVERS
from tests.support.server import Gate, Server, answer, copy_project, send

COLOR = re.compile(r"\x1b\[[0-9;]*m")
TIME = r"\d\d:\d\d:\d\d"
ISO = rf"\d{{4}}-\d\d-\d\dT{TIME}\.\d{{3}}Z"


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return copy_project("startproject", tmp_path)


def terminal(
    project: Path,
    server: str,
    *arguments: str,
    columns: int = 80,
    env: Mapping[str, str] | None = None,
) -> Server:
    env = {"TERM": "xterm-256color", **(env or {})}
    return Server(project, "--server", server, *arguments, columns=columns, env=env)


def uncolored(process: Server) -> list[str]:
    return [COLOR.sub("", line) for line in process.lines]


def test_panel_and_access_lines_in_80_columns(server: str, project: Path) -> None:
    long = "/" + "page/" * 4
    with terminal(project, server) as process:
        process.ready()
        for path in ("/", long + "?q=hidden"):
            process.get(path)
        process.wait_for("GET    /page/")
        assert process.stop(signal.SIGINT) == 0
    lines = uncolored(process)

    start = lines.index(f"  startproject   http://127.0.0.1:{process.port}")
    panel = lines[start + 2 : start + 5]
    assert [line.split()[0] for line in panel] == ["application", "settings", "server"]
    assert panel[0].split()[1:] == ["mysite.asgi:application", "mysite/asgi.py:13"]
    assert panel[1].split()[1:] == ["mysite.settings", "mysite/asgi.py:11"]
    assert re.search(rf"{server} \d[\d.]*, 1 worker +--server$", panel[2])
    assert "  DEBUG is on: fine here, not on the internet." in lines
    assert "  In production: djasgi serve --env production" in lines

    log = [line for line in lines if re.match(TIME, line)]
    assert re.fullmatch(rf"{TIME}  ready in \d+\.\d\d s", log[0])
    assert re.fullmatch(rf"{TIME}  GET    / +200 +\d+ B +\d+\.\d ms", log[1])
    assert re.fullmatch(rf"{TIME}  GET    {long} +404 +[\d.]+ k?B +\d+\.\d ms", log[2])
    # Status, size and duration are each in a column of its own.
    assert len({len(line) for line in log[1:3]}) == 1
    assert re.fullmatch(rf"{TIME}  stopping.*", log[-2])
    assert re.fullmatch(rf"{TIME}  stopped", log[-1])
    assert [line for line in lines if len(line) > 80] == []
    assert "hidden" not in process.log


def test_colours_are_for_status_and_address(server: str, project: Path) -> None:
    with terminal(project, server) as process:
        process.ready()
        process.get("/")
        process.get("/missing/")
        process.wait_for("GET    /missing/")
        address = f"\x1b[36mhttp://127.0.0.1:{process.port}\x1b[0m"
        assert process.stop() == 0
    assert address in process.log
    assert process.matches(r"GET    / .*\x1b\[32m200\x1b\[0m")
    assert process.matches(r"GET    /missing/ .*\x1b\[33m404\x1b\[0m")


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_terminal_without_colours(
    server: str, variables: dict[str, str], project: Path
) -> None:
    with terminal(project, server, env=variables) as process:
        process.ready().get("/")
        process.wait_for("GET    /")
        assert process.stop() == 0
    assert "\x1b" not in process.log
    assert process.matches(rf"^{TIME}  GET    / +200 ")


def test_narrow_terminal_keeps_the_path_and_drops_the_figures(
    server: str, project: Path
) -> None:
    path = "/page/with/a/long/path/" + "x" * 30
    with terminal(project, server, columns=50) as process:
        process.ready()
        process.get("/")
        process.get(path)
        process.wait_for("GET    /page/")
        assert process.stop() == 0
    [short] = [line for line in uncolored(process) if re.search("GET    / ", line)]
    assert len(short) <= 50
    assert short.endswith(" 200")
    assert any(path in line for line in uncolored(process))


def test_pipe_gets_plain_lines(server: str, project: Path) -> None:
    with Server(project, "--server", server) as process:
        process.ready().get("/?q=hidden")
        process.wait_for("GET /")
        assert process.stop() == 0
    line = re.compile(rf"{ISO} (INFO   |WARNING) \S.*")
    assert [text for text in process.lines if not line.fullmatch(text)] == []
    messages = [text[33:] for text in process.lines]
    assert messages[0] == f"listening on http://127.0.0.1:{process.port}"
    assert messages[1] == "application: mysite.asgi:application (mysite/asgi.py:13)"
    assert messages[2] == "settings: mysite.settings (mysite/asgi.py:11)"
    assert re.fullmatch(
        rf"server: {server} \d[\d.]*, 1 worker \(--server\)", messages[3]
    )
    assert messages[-2:] == ["stopping: SIGTERM", "stopped"]


@pytest.mark.parametrize(
    ("variables", "colored"),
    [({}, False), ({"FORCE_COLOR": "1"}, True), ({"NO_COLOR": "1"}, False)],
)
def test_colours_in_a_pipe_are_for_those_who_force_them(
    server: str, variables: dict[str, str], colored: bool, project: Path
) -> None:
    variables = variables | ({"FORCE_COLOR": "1"} if "NO_COLOR" in variables else {})
    with Server(project, "--server", server, env=variables) as process:
        process.ready().get("/")
        process.wait_for(rf"^{ISO} INFO    127\.0\.0\.1 GET / ")
        assert process.stop() == 0
    warning = r"\x1b\[33mWARNING\x1b\[0m" if colored else "WARNING"
    assert process.matches(rf"^{ISO} {warning} DEBUG is on")


def test_json_is_one_object_a_line_on_a_terminal_too(
    server: str, project: Path
) -> None:
    with terminal(project, server, "--log-format", "json") as process:
        process.ready().get("/")
        process.wait_for('"path":"/"')
        assert process.stop() == 0
    records = [json.loads(line) for line in process.lines]
    assert records[0]["message"].startswith("listening on http://127.0.0.1:")
    assert records[-1]["message"] == "stopped"
    assert {record["level"] for record in records} == {"info", "warning"}


FORGERY = "\x1b[2J\n2026-01-01T00:00:00.000Z INFO    forged\u2028\u202e\x7f\x9b\x00\r"
RAW = (b"/\x1b[2J", b"/\xe2\x80\xa8forged", b"/\xff\x9b2J", b"/a\x00b", b"/a\rforged")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_peer_cannot_forge_a_line(server: str, log_format: str, tmp_path: Path) -> None:
    """Neither percent-encoded, nor with the bytes themselves, nor in headers."""
    project = copy_project("probe", tmp_path)
    arguments = ("--server", server, "--log-format", log_format)
    with Server(project, *arguments) as process:
        process.ready()
        process.get("/" + quote(FORGERY))
        for target in RAW:
            with process.connect() as sock, suppress(ConnectionError):
                sock.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n")
                sock.sendall(b"X-Request-ID: a\x1b[2Jb\r\nConnection: close\r\n\r\n")
                while sock.recv(1000):
                    pass
        process.get("/", {"X-Request-ID": "x y", "X-Forwarded-For": "\x9b2J"})
        process.get("/last/")
        process.wait_for("/last/")
        assert process.stop() == 0
    lines = [line for line in process.lines if not line.startswith("lifespan: ")]
    begin = r'\{"time":"2' if log_format == "json" else rf"{ISO} (INFO   |WARNING) "
    assert [line for line in lines if not re.match(begin, line)] == []
    assert not re.search(r"[^\x20-\x7e\n]", process.log)
    assert not process.matches(r"^2026-01-01")
    # It was not dropped either: its path stands in the line of its request.
    assert process.matches("/%1B%5B2J%0A2026-01-01T00%3A00%3A00.000Z%20INFO")


def test_logging_of_the_project_wins(server: str, tmp_path: Path) -> None:
    project = copy_project("probe", tmp_path)
    arguments = ("--server", server, "--settings", "probe.with_logging")
    with Server(project, *arguments) as process:
        process.ready().get("/")
        process.wait_for(r"^OURS djasgi\.access 200 /$")
        assert process.stop() == 0
    assert not process.matches(r"GET / HTTP")
    assert process.matches(r"INFO +stopped$")


def test_first_ctrl_c_waits_and_says_so_the_second_does_not(
    server: str, tmp_path: Path
) -> None:
    project = copy_project("probe", tmp_path)
    with (
        Gate() as gate,
        terminal(project, server, env=gate.variables) as process,
        process.ready().connect() as sock,
    ):
        send(sock, "/hold/")
        gate.arrived()
        # A terminal sends it to the supervisor and to its workers.
        process.signal_group(signal.SIGINT)
        process.wait_for(rf"^{TIME}  stopping: SIGINT")
        process.signal_group(signal.SIGINT)
        process.wait_for(rf"^{TIME}  stopping at once: SIGINT")
        assert process.wait() == 0
        assert uncolored(process)[-1].endswith("  stopped")


def test_ctrl_c_finishes_what_is_running(server: str, tmp_path: Path) -> None:
    project = copy_project("probe", tmp_path)
    with (
        Gate() as gate,
        terminal(project, server, env=gate.variables) as process,
        process.ready().connect() as sock,
        process.websocket("/room/"),
    ):
        process.wait_for(rf"^{TIME}  WS     /room/ +\x1b\[36mopen\x1b\[0m$")
        send(sock, "/hold/")
        gate.arrived()
        process.signal_group(signal.SIGINT)
        process.wait_for("stopping")
        gate.open()
        assert answer(sock)[1] == "held"
        assert process.wait() == 0
        assert "Traceback" not in process.log


@pytest.mark.parametrize("workers", ["0", "2"])
def test_worker_count_is_in_the_panel(server: str, workers: str, project: Path) -> None:
    with terminal(project, server, "--workers", workers) as process:
        process.ready()
        words = {"0": "in this process", "2": "2 workers"}[workers]
        assert any(re.search(rf"server .*, {words} ", x) for x in uncolored(process))
        assert process.stop() == 0


def test_a_debug_site_that_others_can_reach_is_warned_of(
    server: str, project: Path
) -> None:
    address = ("--host", "0.0.0.0", "--port", "0")
    with Server(project, "--server", server, address=address, columns=80) as process:
        process.ready()
        assert process.matches("DEBUG is on and this address can be reached from other")
        assert [line for line in uncolored(process) if len(line) > 80] == []
        assert process.stop() == 0


WARNS = """
import warnings

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path

settings.configure(SECRET_KEY="for tests only", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)


def index(request):
    warnings.warn("said on purpose")
    return HttpResponse()


urlpatterns = [path("", index)]
application = get_asgi_application()
"""


@pytest.mark.parametrize("preload", ["on", "off"])
def test_a_warning_of_the_project_is_shown(
    server: str, preload: str, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(WARNS)
    arguments = ("app.py:application", "--server", server, "--preload", preload)
    with Server(tmp_path, *arguments) as process:
        assert process.get("/")[0].status == 200
        process.wait_for("app.py:13: UserWarning: said on purpose")
        assert process.stop() == 0
