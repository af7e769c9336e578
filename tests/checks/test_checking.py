"""The command: what is run, what is shown, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from djasgi.checks.base import findings, named
from djasgi.checks.context import Context
from djasgi.plan import resolve
from tests.checks.projects import settings, views, write
from tests.checks.zygote import Zygote
from tests.support.command import EXAMPLES, djasgi, environment

BLOCKING = views("import time\nasync def cart(request):\n    time.sleep(1)\n")
TABLE = "[tool.djasgi]\nsilence = %s\n"


def test_the_real_command(tmp_path: Path) -> None:
    done = djasgi("check", cwd=write(tmp_path, BLOCKING))
    assert done.returncode == 0, done.stderr
    assert "warning  djasgi.W034  An async view blocks the event loop" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 warning in ")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("level", "code"), [("ERROR", 0), ("warning", 1), ("INFO", 1), ("CRITICAL", 0)]
)
def test_fail_level(tmp_path: Path, zygote: Zygote, level: str, code: int) -> None:
    root = write(tmp_path, BLOCKING)
    assert zygote.run("check", "--fail-level", level, cwd=root).code == code


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--only", "E0111"), 2, "Did you mean djasgi.E011?"),
        (("--skip", "nothing"), 2, "djasgi check --list"),
        (("--explain", "X1"), 2, "There is no check 'X1'"),
        (("--format", "xml"), 2, "xml"),
        (("--fail-level", "HIGH"), 2, "HIGH"),
        (("--settings", "config.setings"), 3, "Did you mean config.settings?"),
    ],
)
def test_what_is_typed_wrong(
    tmp_path: Path, zygote: Zygote, arguments: tuple[str, ...], code: int, words: str
) -> None:
    result = zygote.run("check", *arguments, cwd=write(tmp_path))
    assert result.code == code
    assert words in result.stderr


def test_without_a_project_it_is_the_projects_error(
    tmp_path: Path, zygote: Zygote
) -> None:
    assert zygote.run("check", cwd=tmp_path).code == 3


def test_list_and_explain_need_no_project(tmp_path: Path, zygote: Zygote) -> None:
    assert "djasgi.E011" in zygote.run("check", "--list", cwd=tmp_path).stdout
    explained = zygote.run("check", "--explain", "w034", cwd=tmp_path)
    assert explained.code == 0
    assert "requests.post(url" in explained.stdout


def test_a_project_that_does_not_load_keeps_what_was_found(
    tmp_path: Path, zygote: Zygote
) -> None:
    root = write(tmp_path, BLOCKING, settings("import nothing_of_that_name\n"))
    result = zygote.run("check", cwd=root)
    assert result.code == 3
    assert "djasgi.W034" in result.stdout
    assert "the others need the project" in result.stdout
    assert "nothing_of_that_name" in result.stderr
    value = zygote.run("check", "--format", "json", cwd=root).json
    assert [finding["id"] for finding in value["findings"]] == ["djasgi.W034"]
    assert "nothing_of_that_name" in value["error"]["message"]


def test_what_the_project_prints_does_not_disturb(
    tmp_path: Path, zygote: Zygote
) -> None:
    noise = "import os\nprint('hello')\nos.write(1, b'there\\n')\n"
    result = zygote.run(
        "check", "--format", "json", cwd=write(tmp_path, settings(noise))
    )
    assert result.ids == []
    assert {"hello", "there"} <= set(result.stderr.split())


def test_broken_files_are_named_and_skipped(tmp_path: Path, zygote: Zygote) -> None:
    root = write(tmp_path, BLOCKING)
    (root / "shop/broken.py").write_text("async def x(:\n")
    (root / "shop/binary.py").write_bytes(b"async def \0\xff")
    (root / "shop/enormous.py").write_bytes(b"async def\n" * 120_000)
    (root / "shop/closed.py").write_text("async def x(): pass")
    (root / "shop/closed.py").chmod(0)
    (root / "compose.yaml").write_text("services: [")
    result = zygote.run("check", "--format", "json", cwd=root)
    skipped = {entry["file"]: entry["reason"] for entry in result.json["skipped"]}
    closed = {"shop/closed.py"} if os.geteuid() else set()
    assert set(skipped) == {
        *("shop/broken.py", "shop/binary.py", "shop/enormous.py", "compose.yaml"),
        *closed,
    }
    assert result.ids == ["djasgi.W034"]


def test_silenced_by_the_configuration_or_by_django(
    tmp_path: Path, zygote: Zygote
) -> None:
    root = write(tmp_path, BLOCKING, {"pyproject.toml": TABLE % '["W034"]'})
    assert zygote.run("check", "--format", "json", cwd=root).json["silenced"] == [
        "djasgi.W034"
    ]
    silenced = {
        **BLOCKING,
        **settings('SILENCED_SYSTEM_CHECKS = ["djasgi.W034"]\n'),
        "pyproject.toml": "",
    }
    result = zygote.run("check", "--fail-level", "INFO", cwd=write(root, silenced))
    assert result.code == 0
    assert result.stdout.startswith("Nothing found")
    assert "1 silenced" in result.stdout


def test_a_silence_that_is_not_needed_any_more_is_reported(
    tmp_path: Path, zygote: Zygote
) -> None:
    table = {"pyproject.toml": TABLE % '["djasgi.W034", "W085", "security.W004"]'}
    root = write(tmp_path, table)
    result = zygote.run("check", "--deploy", "--format", "json", cwd=root)
    # W085 is for --probe, which was not asked for.
    assert result.json["stale"] == ["djasgi.W034", "security.W004"]
    text = zygote.run("check", "--deploy", cwd=root).stdout
    assert "djasgi.W034 is silenced, and no longer found: remove it." in text
    for arguments in ((), ("--deploy", "--skip", "E011")):
        value = zygote.run("check", "--format", "json", *arguments, cwd=root).json
        assert value["stale"] == []


@pytest.mark.parametrize("value", ['"W034"', "[1]", "{}"])
def test_silence_is_a_list_of_ids(tmp_path: Path, zygote: Zygote, value: str) -> None:
    root = write(tmp_path, {"pyproject.toml": TABLE % value})
    result = zygote.run("check", cwd=root)
    assert result.code == 2
    assert "pyproject.toml:2: silence" in result.stderr


def test_djangos_own_checks_have_their_ids_and_places(
    tmp_path: Path, zygote: Zygote
) -> None:
    models = (
        "from django.db import models\nclass Order(models.Model):\n"
        "    owner = models.ForeignKey('shop.Nobody', models.CASCADE)\n"
    )
    root = write(tmp_path, {"shop/models.py": models})
    result = zygote.run("check", "--format", "json", cwd=root)
    assert result.code == 1
    found = {finding["id"]: finding for finding in result.json["findings"]}
    assert found["fields.E300"]["place"]["file"] == "shop/models.py"
    assert found["fields.E300"]["place"]["line"] == 2
    assert found["fields.E300"]["level"] == "error"


def test_djangos_deployment_checks_are_for_production(
    tmp_path: Path, zygote: Zygote
) -> None:
    root = write(tmp_path, settings("SECURE_HSTS_SECONDS = 0\n"))
    plain = zygote.run("check", "--format", "json", cwd=root)
    assert plain.ids == []
    for arguments in (("--deploy",), ("--env", "production")):
        found = zygote.run("check", "--format", "json", *arguments, cwd=root)
        assert found.ids == ["security.W004"]
    only = zygote.run(
        *("check", "--deploy", "--only", "security.W004", "--format", "json"), cwd=root
    )
    assert only.ids == ["security.W004"]
    skip = zygote.run(
        *("check", "--deploy", "--skip", "security.W004", "--format", "json"), cwd=root
    )
    assert skip.ids == []


def test_debug_is_said_once(tmp_path: Path, zygote: Zygote) -> None:
    root = write(tmp_path, settings("DEBUG = True\n"))
    result = zygote.run("check", "--deploy", "--format", "json", cwd=root)
    assert result.ids == ["djasgi.E006"]  # and not security.W018


def test_the_plan_that_would_be_served_is_checked(
    tmp_path: Path, zygote: Zygote
) -> None:
    production = {
        "config/production.py": "from config.settings import *\nDEBUG = True\n"
    }
    table = '[tool.djasgi.env.production]\nsettings = "config.production"\n'
    root = write(tmp_path, production, {"pyproject.toml": table})
    assert zygote.run("check", cwd=root).code == 0
    result = zygote.run("check", "--env", "production", cwd=root)
    assert result.code == 1
    assert "config/production.py:2" in result.stdout


def test_what_the_server_cannot_do_is_refused_as_by_serve(
    tmp_path: Path, zygote: Zygote
) -> None:
    arguments = ("--server", "uvicorn", "--http2")
    served = zygote.run("serve", *arguments, cwd=write(tmp_path))
    checked = zygote.run("check", *arguments, cwd=tmp_path)
    assert (checked.code, checked.stderr) == (served.code, served.stderr)
    assert checked.code == 2


def test_system_checks_of_django(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        settings(
            'INSTALLED_APPS += ["djasgi"]\nFORCE_SCRIPT_NAME = "/shop/"\n'
            'ALLOWED_HOSTS = ["*"]\n'
        ),
    )

    def check(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "manage.py", "check", "--tag", "asgi", *arguments],
            cwd=root,
            env=environment(DJANGO_SETTINGS_MODULE="config.settings"),
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout + done.stderr

    plain = check()
    assert "djasgi.W056" in plain
    assert "config/settings.py:" in plain
    assert "djasgi.W008" not in plain
    assert "djasgi.W008" in check("--deploy")
    both = settings('INSTALLED_APPS += ["djasgi"]\nFORCE_SCRIPT_NAME = "/shop/"\n')
    result = djasgi("check", "--format", "json", cwd=write(root, both))
    ids = [finding["id"] for finding in json.loads(result.stdout)["findings"]]
    assert ids == ["djasgi.W056"]  # once, though Django runs it as well


@pytest.mark.parametrize("name", ["minimal", "chat", "environments", "wrapped"])
def test_the_examples_are_clean(zygote: Zygote, name: str) -> None:
    result = zygote.run("check", "--format", "json", cwd=EXAMPLES / name)
    assert (result.code, result.ids) == (0, []), result.stdout


def test_the_example_of_production_is_clean(zygote: Zygote) -> None:
    root = EXAMPLES / "environments"
    result = zygote.run("check", "--env", "production", "--format", "json", cwd=root)
    assert (result.code, result.ids) == (0, []), result.stdout


CHECKLIST = """
import os
SECRET_KEY = os.environ["SECRET_KEY"]
DEBUG = False
ALLOWED_HOSTS = ["example.com"]
SECURE_SSL_REDIRECT = True
SECURE_HSTS_SECONDS = 31_536_000
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_HSTS_PRELOAD = True
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
STATIC_ROOT = BASE_DIR / "static"
"""


@pytest.mark.parametrize("workers", ["1", "4"])
def test_startproject_done_by_the_checklist_is_clean(
    tmp_path: Path, zygote: Zygote, workers: str
) -> None:
    subprocess.run(
        [sys.executable, "-m", "django", "startproject", "mysite", tmp_path],
        env=environment(),
        check=True,
    )
    path = tmp_path / "mysite/settings.py"
    path.write_text(path.read_text() + CHECKLIST)
    if workers != "1":
        # The checklist says so: another database than SQLite.
        text = path.read_text().replace("backends.sqlite3", "backends.dummy")
        path.write_text(text)
    result = zygote.run(
        *("check", "--env", "production", "--workers", workers, "--format", "json"),
        cwd=tmp_path,
        env={"SECRET_KEY": "k" * 30 + "abcdefghijklmnopqrstuvwxyz"},
    )
    assert (result.code, result.ids) == (0, []), result.stdout


def test_slow_boot_is_measured(tmp_path: Path) -> None:
    line = (
        "web: uvicorn config.asgi:application --workers 2 --host 0.0.0.0 --port $PORT"
    )
    root = write(tmp_path, {"Procfile": line})
    context = Context(resolve("check", {}, {}, root), settings=SimpleNamespace())
    context.load_seconds = 6.0
    (finding,) = findings(named("W064"), context)
    assert "took 6.0 seconds" in finding.text
    context.load_seconds = 4.0
    assert findings(named("W064"), context) == []
    slow = {"Procfile": f"{line} --timeout-worker-healthcheck 60"}
    context = Context(resolve("check", {}, {}, write(root, slow)))
    context.load_seconds = 6.0
    assert findings(named("W064"), context) == []


def test_warnings_of_the_plan_are_shown(tmp_path: Path, zygote: Zygote) -> None:
    result = zygote.run("check", cwd=write(tmp_path), env={"DJASGI_WORKRS": "2"})
    assert "DJASGI_WORKRS is not a variable that djasgi knows" in result.stdout


@pytest.mark.parametrize(
    "text",
    [
        "CHANNEL_LAYERS = 'x'",
        "CHANNEL_LAYERS = {'default': None}",
        "REST_FRAMEWORK = None",
        "REST_FRAMEWORK = 7",
        "LOGGING = None",
        "STORAGES = {'staticfiles': {}}",
        "FORCE_SCRIPT_NAME = 7",
        "ASGI_APPLICATION = 'nothing'",
        "CACHES = {'default': {'BACKEND': 7}}",
        "MIDDLEWARE = ()",
        "STATIC_URL = None\nINSTALLED_APPS += ['django.contrib.staticfiles']",
    ],
)
def test_settings_of_any_shape(tmp_path: Path, zygote: Zygote, text: str) -> None:
    root = write(tmp_path, settings(f"{text}\n"))
    result = zygote.run(
        *("check", "--deploy", "--workers", "2", "--format", "json"), cwd=root
    )
    assert result.code in (0, 1, 2, 3)
    assert "djasgi/check" not in result.stderr
    assert isinstance(result.json["findings"], list)


def test_a_system_check_of_the_project_that_raises(
    tmp_path: Path, zygote: Zygote
) -> None:
    models = (
        "from django.core.checks import register\n@register\n"
        "def broken(**kwargs):\n    raise KeyError('broken here')\n"
    )
    root = write(tmp_path, BLOCKING, {"shop/models.py": models})
    result = zygote.run("check", cwd=root)
    assert result.code == 3
    assert "djasgi.W034" in result.stdout
    assert "broken here" in result.stderr


def test_an_application_that_is_not_djangos(tmp_path: Path, zygote: Zygote) -> None:
    code = "async def app(scope, receive, send):\n    raise ValueError('no lifespan')\n"
    (tmp_path / "plain.py").write_text(code)
    result = zygote.run(
        "check", "plain.py", "--probe", "--format", "json", cwd=tmp_path
    )
    assert (result.code, result.ids) == (0, []), result.stdout
    assert result.json["skipped"] == []
