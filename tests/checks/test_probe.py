"""`--probe`: what only a running worker tells."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import pytest

from djasgi import probe
from djasgi.checks.base import findings, named
from djasgi.checks.context import Context
from djasgi.options import SERVERS
from djasgi.plan import resolve
from tests.checks.projects import settings, write
from tests.checks.test_every_check import AUTH, CHANNELS, DATABASE
from tests.checks.zygote import Zygote

HEALTH = {
    "config/urls.py": """\
from django.http import HttpResponse
from django.urls import path
urlpatterns = [path("up", lambda request: HttpResponse())]
""",
    "render.yaml": "services:\n  - type: web\n    startCommand: djasgi serve\n"
    "    healthCheckPath: /up\n",
}
INSECURE = "SECURE_SSL_REDIRECT = False\n"
WHITENOISE = """
INSTALLED_APPS += ["django.contrib.staticfiles", "django.contrib.admin",
    "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.messages",
    "django.contrib.sessions"]
MIDDLEWARE += ["django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True, "OPTIONS": {"context_processors": [
    "django.template.context_processors.request",
    "django.contrib.auth.context_processors.auth",
    "django.contrib.messages.context_processors.messages"]}}]
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "static"
"""
FAKE_WHITENOISE = {
    "whitenoise/middleware.py": """\
from django.http import HttpResponse
def WhiteNoiseMiddleware(get_response):
    def middleware(request):
        if request.path.startswith("/static/") and FOUND:
            return HttpResponse()
        return get_response(request)
    return middleware
FOUND = %s
"""
}
MANIFEST = """
INSTALLED_APPS += ["django.contrib.staticfiles"]
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "collected"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND":
        "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
}
"""
MIGRATION = """
from django.db import migrations, models
class Migration(migrations.Migration):
    initial = True
    operations = [migrations.CreateModel("Order", [
        ("id", models.BigAutoField(primary_key=True)),
        ("name", models.CharField(max_length=9))])]
"""
LIFESPAN = """
from config.django import application as inner
async def application(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.%s"})
        if %s:
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        return
    await inner(scope, receive, send)
"""


def ids(zygote: Zygote, root: Path, name: str, *arguments: str) -> list[str]:
    result = zygote.run(
        "check", "--probe", "--only", name, "--format", "json", *arguments, cwd=root
    )
    assert result.code in (0, 1), result.stderr
    return result.ids


@pytest.mark.parametrize("server", SERVERS)
def test_a_clean_project_is_clean_on_every_server(
    tmp_path: Path, zygote: Zygote, server: str
) -> None:
    root = write(tmp_path, HEALTH, settings(INSECURE + 'ALLOWED_HOSTS = ["*"]\n'))
    result = zygote.run(
        *("check", "--probe", "--server", server, "--format", "json"), cwd=root
    )
    assert (result.code, result.ids) == (0, []), result.stdout


@pytest.mark.parametrize(
    ("outcome", "found"), [("failed", ["djasgi.E081"]), ("complete", [])]
)
def test_a_worker_that_does_not_start(
    tmp_path: Path, zygote: Zygote, outcome: str, found: list[str]
) -> None:
    files = {
        "config/django.py": "import django.core.asgi\n"
        "application = django.core.asgi.get_asgi_application()\n",
        "config/asgi.py": LIFESPAN % (outcome, outcome == "complete"),
    }
    assert ids(zygote, write(tmp_path, files), "E081") == found


@pytest.mark.parametrize(
    ("text", "arguments", "found"),
    [
        (INSECURE, (), ["djasgi.E082"]),  # ALLOWED_HOSTS
        ('ALLOWED_HOSTS = ["*"]\n', (), ["djasgi.E082"]),  # SECURE_SSL_REDIRECT
        (INSECURE + 'ALLOWED_HOSTS = ["*"]\n', (), []),
        ("", ("--ready-path", "/up"), []),
    ],
)
def test_the_platforms_health_check(
    tmp_path: Path,
    zygote: Zygote,
    text: str,
    arguments: tuple[str, ...],
    found: list[str],
) -> None:
    root = write(tmp_path, HEALTH, settings(text))
    assert ids(zygote, root, "E082", *arguments) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            'SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "on")\n',
            ["djasgi.E083"],
        ),
        ('SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")\n', []),
        ("", []),
    ],
)
def test_the_redirect_loop(
    tmp_path: Path, zygote: Zygote, text: str, found: list[str]
) -> None:
    assert ids(zygote, write(tmp_path, settings(text)), "E083") == found


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("application", "found"),
    [
        ("AuthMiddlewareStack(routes)", ["djasgi.W084"]),
        ("AllowedHostsOriginValidator(AuthMiddlewareStack(routes))", []),
    ],
)
def test_a_websocket_of_a_foreign_site(
    tmp_path: Path, zygote: Zygote, server: str, application: str, found: list[str]
) -> None:
    root = write(tmp_path, AUTH, {"config/asgi.py": CHANNELS % application})
    assert ids(zygote, root, "W084", "--server", server) == found


def test_unapplied_migrations_without_writing(tmp_path: Path, zygote: Zygote) -> None:
    database = tmp_path / "x.db"
    root = write(
        tmp_path,
        settings(DATABASE.replace('"x.db"', f'"{database}"') % ""),
        {"shop/migrations/__init__.py": "", "shop/migrations/0001_x.py": MIGRATION},
    )
    assert ids(zygote, root, "W085") == []
    assert not database.exists()
    sqlite3.connect(database).execute("create table other (x)").connection.close()
    before = database.read_bytes()
    assert ids(zygote, root, "W085") == ["djasgi.W085"]
    assert database.read_bytes() == before
    assert zygote.run("manage", "migrate", cwd=root).code == 0
    assert ids(zygote, root, "W085") == []


@pytest.mark.parametrize(("there", "found"), [(True, []), (False, ["djasgi.W086"])])
def test_a_static_file_that_should_be_served(
    tmp_path: Path, zygote: Zygote, there: bool, found: list[str]
) -> None:
    files = {name: text % there for name, text in FAKE_WHITENOISE.items()}
    files["whitenoise/__init__.py"] = ""  # else the installed one would win
    database = DATABASE % ""
    root = write(tmp_path, settings(INSECURE + WHITENOISE + database), files)
    assert ids(zygote, root, "W086", "--deploy") == found


def test_the_manifest(tmp_path: Path, zygote: Zygote) -> None:
    root = write(tmp_path, settings(MANIFEST))
    assert ids(zygote, root, "E087", "--deploy") == ["djasgi.E087"]
    assert zygote.run("manage", "collectstatic", "--noinput", cwd=root).code == 0
    assert ids(zygote, root, "E087", "--deploy") == []


class Cursor:
    """A cursor of a server that allows 100 connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None: ...

    def execute(self, sql: str) -> None:
        assert sql == "SHOW max_connections"

    def fetchone(self) -> tuple[str]:
        return ("100",)


@pytest.mark.parametrize(
    ("pool", "workers", "count"),
    [({"max_size": 30}, 4, 1), ({"max_size": 20}, 4, 0), (True, 4, 0), (True, 26, 1)],
)
def test_pools_and_the_limit_of_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: Any, workers: int, count: int
) -> None:
    import django.db

    connection = SimpleNamespace(
        vendor="postgresql",
        settings_dict={"OPTIONS": {"pool": pool}},
        cursor=Cursor,
        close=lambda: None,
    )
    connections: Mapping[str, Any] = {"default": connection}
    monkeypatch.setattr(django.db, "connections", connections)
    plan = resolve("check", {"workers": workers}, {}, write(tmp_path))
    assert len(findings(named("E088"), Context(plan))) == count


def test_nothing_is_left_running(tmp_path: Path) -> None:
    plan = resolve("check", {}, {}, write(tmp_path, settings(INSECURE)))
    with probe.served(plan, {}) as worker:
        assert worker.failure == ""
        answer = worker.get("/", {"Host": "example.com"})
        assert answer is not None
        assert answer.status == 200
    assert worker.get("/", {}) is None


def test_a_worker_that_dies_says_why(tmp_path: Path) -> None:
    plan = resolve("check", {}, {}, write(tmp_path, settings("import nothing_there\n")))
    with probe.served(plan, {}) as worker:
        assert "nothing_there" in worker.failure


def test_files_of_the_project_do_not_shadow_ours(
    tmp_path: Path, zygote: Zygote
) -> None:
    files = dict.fromkeys(("http.py", "queue.py", "json.py"), "raise SystemExit(9)\n")
    root = write(tmp_path, files, settings(INSECURE))
    assert ids(zygote, root, "E081") == []
