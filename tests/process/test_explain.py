"""`djasgi explain`: what it says, what it hides, and that its command really runs."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from djasgi.options import OPTIONS, SERVERS
from tests.support.command import DJASGI, djasgi, environment
from tests.support.process import Process, until
from tests.support.server import answer, copy_project, refused, reserved, send, tcp

MASK = "••••••••"

each_server = pytest.mark.parametrize("server", SERVERS)


def explain(root: Path, *arguments: str, **env: str) -> list[str]:
    """The lines of the text."""
    result = djasgi("explain", *arguments, cwd=root, env=env)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


def explained(root: Path, *arguments: str, **env: str) -> dict[str, Any]:
    """The same as data."""
    result = djasgi("explain", "--format", "json", *arguments, cwd=root, env=env)
    assert (result.returncode, result.stderr) == (0, "")
    data: dict[str, Any] = json.loads(result.stdout)
    return data


def section(lines: list[str], title: str) -> list[str]:
    """The lines below a title, each with single spaces."""
    start = lines.index(title) + 1
    end = lines.index("", start) if "" in lines[start:] else len(lines)
    return [" ".join(line.split()) for line in lines[start:end]]


CONFIGURATION = """\
[tool.djasgi]
keep-alive = 30

[tool.djasgi.env.stage]
settings = "probe.staging"
server = "hypercorn"
workers = 2
env-file = "stage.env"
variables = { STAGE = "yes", PAYMENT_KEY = "k-123" }
"""


@pytest.fixture
def project() -> Iterator[Path]:
    """In a folder with a short name: a line is not folded for it."""
    with TemporaryDirectory() as folder:
        yield copy_project("probe", Path(folder).resolve())


@pytest.fixture
def configured(project: Path) -> Path:
    (project / "pyproject.toml").write_text(CONFIGURATION)
    (project / "stage.env").write_text(
        "NAME=value-123\nDATABASE_URL=db://u:p-123@h/d\n"
    )
    return project


def test_plain_project(project: Path) -> None:
    lines = explain(project)

    assert section(lines, "Project") == [
        f"root {project} manage.py",
        "application probe.asgi:application probe/asgi.py:12",
        "settings probe.settings probe/asgi.py:7",
    ]
    serving = section(lines, "Serving")
    assert re.fullmatch(r"server uvicorn \d[\d.]* default", serving[0])
    assert serving[1:4] == [
        "bind 127.0.0.1:8000 default",
        "workers 1 default",
        "handler djasgi default",
    ]
    assert re.fullmatch(
        r"and \d+ options at their defaults: djasgi explain --all", serving[4]
    )
    assert "Variables" not in lines


def test_environment_with_the_origin_of_each_value(configured: Path) -> None:
    lines = explain(configured, "--env", "stage", PORT="9000", WEB_CONCURRENCY="4")

    assert section(lines, "Project")[2:] == [
        "environment stage --env",
        "settings probe.staging pyproject.toml:5",
        "instead of probe.settings, manage.py:7",
    ]
    serving = section(lines, "Serving")
    assert re.fullmatch(r"server hypercorn \d[\d.]* pyproject.toml:6", serving[0])
    assert serving[1:7] == [
        "bind [::]:9000 PORT",
        "workers 4 WEB_CONCURRENCY",
        "instead of 2, pyproject.toml:7",
        "handler djasgi default",
        f"env-file {configured / 'stage.env'} pyproject.toml:8",
        "keep-alive 30 pyproject.toml:2",
    ]
    assert section(lines, "Variables") == [
        "STAGE yes pyproject.toml:9",
        f"PAYMENT_KEY {MASK} pyproject.toml:9",
        f"NAME {MASK} stage.env:1",
        f"DATABASE_URL {MASK} stage.env:2",
    ]


def test_thread_hops_of_a_request(tmp_path: Path) -> None:
    """Before and after, if the middleware is a list that can be read."""
    root = copy_project("startproject", tmp_path)
    serving = section(explain(root), "Serving")
    assert serving[3] == "handler djasgi, 11 thread hops → 1 default"
    serving = section(explain(root, "--handler", "django"), "Serving")
    assert serving[3] == "handler django, 11 thread hops --handler"
    handler = explained(root)["handler"]
    assert handler == {
        "name": "djasgi",
        "reason": "",
        "thread_hops": {"django": 11, "djasgi": 1},
    }


def test_json_says_the_same(configured: Path) -> None:
    data = explained(configured, "--env", "stage", "--keep-alive", "7", PORT="9000")

    assert data["project"]["root"] == {"value": str(configured), "origin": "manage.py"}
    assert data["project"]["environment"]["value"] == "stage"
    assert data["project"]["settings"] == {
        "value": "probe.staging",
        "origin": "pyproject.toml:5",
        "instead_of": [{"value": "probe.settings", "origin": "manage.py:7"}],
    }
    serving = {entry["option"]: entry for entry in data["serving"]}
    project_options = {"app", "project", "env", "settings"}
    assert serving.keys() == {spec.name for spec in OPTIONS.values()} - project_options
    assert serving["keep-alive"] == {
        "option": "keep-alive",
        "value": "7",
        "origin": "--keep-alive",
        "instead_of": [{"value": "30", "origin": "pyproject.toml:2"}],
    }
    assert serving["port"]["origin"] == "PORT"
    assert {v["name"]: v["value"] for v in data["variables"]} == {
        "STAGE": "yes",
        "PAYMENT_KEY": MASK,
        "NAME": MASK,
        "DATABASE_URL": MASK,
    }
    assert data["native"]["arguments"][0] == "hypercorn"


def test_port_that_does_not_count_is_shown(project: Path) -> None:
    serving = section(explain(project, "--bind", "127.0.0.1:1", PORT="9000"), "Serving")
    at = serving.index("bind 127.0.0.1:1 --bind")
    assert serving[at + 1] == "instead of 9000, PORT"


def test_host_and_port_may_come_from_different_sources(project: Path) -> None:
    (project / "pyproject.toml").write_text(
        '[tool.djasgi]\nhost = "0.0.0.0"\nport = 8\n'
    )
    lines = section(explain(project, PORT="9"), "Serving")
    place = lines.index("bind 0.0.0.0:9 pyproject.toml:2, PORT")
    assert lines[place + 1] == "instead of 8, pyproject.toml:3"


def test_asgi_that_was_not_taken_is_named_with_the_reason(tmp_path: Path) -> None:
    root = copy_project("foreign_asgi", tmp_path)
    lines = section(explain(root), "Project")
    assert "application Django's own synthesised" in lines
    assert any(line.startswith("not celerywyrm/asgi.py: ") for line in lines)
    [other] = explained(root)["project"]["application"]["not_taken"]
    assert other["path"] == "celerywyrm/asgi.py"


@each_server
@pytest.mark.parametrize("form", ["text", "all", "json"])
def test_no_secret_is_anywhere_in_the_output(
    server: str, form: str, project: Path
) -> None:
    """Neither in the plan, nor in the native command, nor in what that cannot do."""
    hidden = [f"hidden-{number}" for number in range(9)]
    (project / "secret.env").write_text(f"PLAIN={hidden[0]}\n")
    (project / "pyproject.toml").write_text(
        "[tool.djasgi.env.stage.variables]\n"
        f'SECRET_KEY = "{hidden[1]}"\nAPI_TOKEN = "{hidden[2]}"\n'
        f'DB_PASSWORD = "{hidden[3]}"\nSENTRY_DSN = "{hidden[4]}"\n'
        f'CACHE = "redis://:{hidden[5]}@cache:6379/1"\n'
        f'BROKER = "amqp://me:{hidden[6]}@queue//"\nSHOWN = "in plain sight"\n'
    )
    arguments = ["--env", "stage", "--env-file", "secret.env", "--server", server]
    arguments += ["--header", f"X-Api-Key: {hidden[7]}"]
    arguments += ["--header", f"Link: https://me:{hidden[8]}@host/"]
    arguments += {"text": [], "all": ["--all"], "json": ["--format", "json"]}[form]

    shown = "\n".join(explain(project, *arguments))

    assert [word for word in hidden if word in shown] == []
    assert "in plain sight" in shown
    assert f"redis://{MASK}@cache:6379/1" in shown


def test_dry_run_of_serve_is_explain(configured: Path) -> None:
    arguments = ("--env", "stage", "--keep-alive", "7", "--port", "0")
    dry = djasgi("serve", "--dry-run", *arguments, cwd=configured)
    assert dry.returncode == 0
    assert dry.stdout.splitlines() == explain(configured, *arguments)


@pytest.mark.parametrize("command", [["explain"], ["serve", "--dry-run"]])
def test_what_serve_refuses_is_refused(command: list[str], project: Path) -> None:
    arguments = ("--server", "uvicorn", "--http2")
    result = djasgi(*command, *arguments, cwd=project)
    assert (result.returncode, result.stdout) == (2, "")
    assert "uvicorn cannot do --http2" in result.stderr


def test_nothing_of_the_project_is_executed(tmp_path: Path) -> None:
    root = copy_project("manage_works", tmp_path)
    (root / "shop" / "__init__.py").write_text("raise SystemExit('executed')\n")
    assert "settings shop.settings shop/asgi.py:5" in section(explain(root), "Project")
    assert not (root / "manage-was-executed").exists()


@each_server
@pytest.mark.parametrize("every", [False, True])
def test_80_columns_are_enough(server: str, every: bool, project: Path) -> None:
    arguments = ["--server", server, "--workers", "auto", "--keep-alive", "7"]
    arguments += ["--graceful-timeout", "30", "--log-level", "warning"]
    arguments += ["--forwarded-allow-ips", "10.0.0.0/8, 192.168.0.0/16, ::1"]
    lines = explain(project, *arguments, *(["--all"] if every else []))
    assert [line for line in lines if len(line) > 80] == []


def test_a_long_name_does_not_run_into_its_value(project: Path) -> None:
    lines = explain(project, "--forwarded-allow-ips", "10.0.0.0/8")
    [line] = [line for line in lines if "10.0.0.0/8" in line and "=" not in line][:1]
    assert line.split() == [
        "forwarded-allow-ips",
        "10.0.0.0/8",
        "--forwarded-allow-ips",
    ]


@each_server
def test_workers_that_only_djasgi_can_count_are_among_what_is_lost(
    server: str, project: Path
) -> None:
    native = explained(project, "--server", server, "--workers", "auto")["native"]
    assert "honour --workers auto" in native["cannot"]
    assert "--workers" not in native["arguments"]


def test_the_native_command_goes_where_the_project_is(tmp_path: Path) -> None:
    root = copy_project("sys_path", tmp_path)
    native = explained(tmp_path, "--project", str(root))["native"]
    assert native["directory"] == str(root)
    assert native["environment"]["PYTHONPATH"] == str(root / "shop")
    lines = explain(tmp_path, "--project", str(root))
    assert f"  cd {root} && \\" in lines
    assert not any(line.lstrip().startswith("cd ") for line in explain(root))


FORGERY = """\
[tool.djasgi.env."x\\u001b[31m\\nFORGED"]
header = ["X-A: b\u0080"]
settings = "probe.staging"
variables = { "a.b" = "v'\\u001b[31m\\nFORGED", B = "[red]é" }
"""


@pytest.mark.parametrize("folder", ["plain", "f\x1b[31m\nFORGED [red]'%s"])
def test_names_and_values_can_neither_forge_a_line_nor_steer_a_terminal(
    folder: str, tmp_path: Path
) -> None:
    root = copy_project("probe", tmp_path).rename(tmp_path / folder)
    (root / "pyproject.toml").write_text(FORGERY)
    arguments = ("--project", folder, "--env", "x\x1b[31m\nFORGED")
    lines = explain(tmp_path, *arguments)
    assert all(line.isprintable() for line in lines)
    assert not any(line.startswith("FORGED") for line in lines)

    # And what is printed is, for a shell, what was written.
    start = lines.index("Nearest native command") + 1
    command = "\n".join(lines[start : lines.index("  It would not:")])
    show = r"""python -c 'import os; print(ascii([os.getcwd(), *map(os.environ.get, ["a.b", "B"])]))'"""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        ["bash", "-c", command.replace("uvicorn", show, 1)],  # noqa: S607
        cwd=tmp_path,
        env=environment(PATH=path, B=""),
        capture_output=True,
        text=True,
        check=True,
    )
    assert ast.literal_eval(result.stdout) == [
        str(root),
        "v'\x1b[31m\nFORGED",
        "[red]é",
    ]


def test_colours_are_for_terminals_and_those_who_force_them(project: Path) -> None:
    assert not any("\x1b" in line for line in explain(project))
    forced = explain(project, FORCE_COLOR="1")
    assert "\x1b[1mProject\x1b[0m" in forced
    assert [re.sub(r"\x1b\[\d*m", "", line) for line in forced] == explain(project)
    none = explain(project, FORCE_COLOR="1", NO_COLOR="1")
    assert none == explain(project)

    with Process(
        [*DJASGI, "explain"],
        cwd=project,
        environ=environment(TERM="xterm"),
        columns=80,
    ) as process:
        assert process.wait() == 0
    assert process.lines == forced


# The printed command, run as it was printed.

RUN = {
    "plain": ("probe", []),
    "no asgi.py": ("no_asgi", []),
    "module": ("probe", ["probe.asgi"]),
    "factory": ("probe", ["probe.asgi:factory()"]),
    "file": ("probe", ["probe/asgi.py"]),
    "single file": ("single_file", ["app.py"]),
    "src": ("src_layout", []),
    "options": (
        "probe",
        [
            *("--env", "stage", "--workers", "2", "--keep-alive", "7"),
            *("--backlog", "100", "--graceful-timeout", "9", "--log-level", "warning"),
            *("--header", "X-Served-By: a probe", "--header", "X-Key: hidden"),
            *("--ws-max-size", "5000", "--ws-ping-interval", "9", "--loop", "asyncio"),
            *("--lifespan", "auto", "--server-header", "--no-access-log"),
            *("--no-proxy-headers", "--env-file", "variables"),
        ],
    ),
}
CALLS = {"no asgi.py", "factory"}


@each_server
@pytest.mark.parametrize("plan", RUN)
def test_native_command_runs_as_it_is_printed(
    server: str, plan: str, tmp_path: Path
) -> None:
    name, arguments = RUN[plan]
    root = copy_project(name, tmp_path)
    (root / "variables").write_text("FROM_FILE=secret\n")
    if not (root / "pyproject.toml").exists():
        (root / "pyproject.toml").write_text(
            '[tool.djasgi.env.stage.variables]\nOWN = "of the table"\nA_KEY = "s"\n'
        )
    with reserved() as port:
        address = ("--host", "127.0.0.1", "--port", str(port))
        lines = explain(root, *arguments, "--server", server, *address)
        start = lines.index("Nearest native command") + 1
        end = lines.index("  It would not:")
        reasons = lines[end + 1 :]
        if server == "daphne" and plan in CALLS:
            # It says so, instead of printing what would not answer.
            assert any(re.search(r"call \S+\(\)", reason) for reason in reasons)
            return
        printed = "\n".join(lines[start:end])
        # What is masked is for the reader to fill in; here it is left out.
        command = re.sub(rf"\S+='{MASK}'|--header '[^']*{MASK}[^']*'", "", printed)
        assert MASK not in command
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with Process(
            ["sh", "-c", command], cwd=root, environ=environment(PATH=path)
        ) as process:
            until(lambda: not refused(port), f"somebody listens: {process.log}")
            with tcp(port) as sock:
                send(sock, "/")
                response, text = answer(sock)
            assert response.status == 200, process.log
            assert json.loads(text)["path"] == "/"
            if plan == "options":
                with tcp(port) as sock:
                    send(sock, "/variable/OWN/")
                    assert answer(sock)[1] == "of the table"
            # How it stops is not ours to say.
            process.signal_group(signal.SIGKILL)
            until(lambda: process.session() == [], "nobody is left")
