"""The project is imported once and forked, except where that would break it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.probes import probes
from tests.support.process import until
from tests.support.server import Server

THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True, name='eater').start()\n"
EPOLL = "import select\nPOLL = select.epoll()\n"
LISTENER = "import socket\nLISTENER = socket.create_server(('127.0.0.1', 0))\n"
STREAM = "import socket\nSTREAM = socket.socketpair()\n"
COUNT = "import os\nos.write(1, b'imported\\n')\n"
HARMLESS = """
from pathlib import Path
BASE = Path(__file__).parent
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {
        "file": {"class": "logging.FileHandler", "filename": BASE / "site.log"},
        "syslog": {
            "class": "logging.handlers.SysLogHandler", "address": ("127.0.0.1", 5514),
        },
    },
    "root": {"handlers": ["file", "syslog"], "level": "WARNING"},
}
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE / "db.sqlite3"}
}
STATIC_URL = "/static/"
STATIC_ROOT = BASE / "static"
INSTALLED_APPS = [
    "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.staticfiles",
    "channels", "rest_framework",
]
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
MIDDLEWARE = [*MIDDLEWARE, "whitenoise.middleware.WhiteNoiseMiddleware"]
"""
QUERY = (
    "from django.db import connection\n"
    "with connection.cursor() as cursor:\n"
    "    cursor.execute('select 1')\n"
)


def append(file: Path, text: str) -> None:
    file.write_text(f"{file.read_text()}\n{text}")


@probes("preload")
def test_the_project_is_imported_once(server: str, live: Path) -> None:
    """With all of this in it; a worker that is killed is made from it as well."""
    append(live / "live" / "settings.py", HARMLESS)
    append(live / "live" / "views.py", "from rest_framework import views\n" + QUERY)
    append(live / "live" / "version.py", COUNT)
    (live / "live" / "static").mkdir()
    with Server(live, "--server", server, "--workers", "3") as process:
        process.ready()
        workers = process.workers()
        assert len(workers) == 3
        for how in ("exit", "SIGKILL"):
            with process.connect() as sock:
                sock.sendall(f"GET /crash/{how}/ HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                assert sock.recv(1) == b""
        process.wait_for("lifespan.startup", count=5)
        assert process.seen()["version"] == 1
        process.wait_for(r"ERROR +worker \d \(pid \d+\) ended with exit code 7; ")
        process.wait_for(r"ERROR +worker \d \(pid \d+\) was killed by SIGKILL; ")
        assert process.stop() == 0
    assert len(process.matches("^imported")) == 1
    assert not process.matches("preload")


def test_each_worker_imports_the_project_with_preload_off(
    server: str, live: Path
) -> None:
    append(live / "live" / "version.py", COUNT)
    arguments = ("--server", server, "--workers", "3", "--preload", "off")
    with Server(live, *arguments) as process:
        process.ready()
        assert len(process.matches("^imported")) == 3
        # Nobody holds the code: the supervisor and its workers are all there is.
        assert len(process.session()) == 4
        assert process.stop() == 0


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (THREAD, "the thread eater"),
        (EPOLL, "an open eventpoll descriptor"),
        (LISTENER, "a listening socket"),
        (STREAM, "a connected unix socket"),
    ],
    ids=["thread", "epoll", "listener", "stream"],
)
def test_what_does_not_survive_a_fork_is_named(
    live: Path, code: str, found: str
) -> None:
    """In one line, with the module that left it."""
    (live / "live" / "culprit.py").write_text(code)
    append(live / "live" / "version.py", f"import live.culprit\n{COUNT}")
    with Server(live, "--workers", "2") as process:
        process.ready()
        process.wait_for(
            "preload: each worker imports the project itself, because the import "
            rf"leaves {found}.* \(module live\.culprit\)"
        )
        # The first try, one to find the culprit, and the workers.
        process.wait_for("^imported", count=4)
        assert len(process.workers()) == 2
        assert process.seen()["version"] == 1
        until(lambda: len(process.session()) == 3, "nobody else is left")
        assert process.stop() == 0
    assert len(process.matches("preload")) == 1


def test_it_is_forked_all_the_same_with_preload_on(server: str, live: Path) -> None:
    append(live / "live" / "version.py", THREAD + COUNT)
    arguments = ("--server", server, "--workers", "2", "--preload", "on")
    with Server(live, *arguments) as process:
        process.ready()
        process.wait_for(
            "WARNING +preload: forking all the same, with the thread eater"
        )
        assert process.seen()["version"] == 1
        assert process.stop() == 0
    assert len(process.matches("^imported")) == 1


@pytest.mark.parametrize("preload", ["auto", "on", "off"])
def test_daphne_among_the_applications(server: str, live: Path, preload: str) -> None:
    """It installs a reactor while it is imported, whoever serves."""
    append(live / "live" / "settings.py", "INSTALLED_APPS = ['daphne', 'channels']")
    arguments = ("--server", server, "--workers", "3", "--preload", preload)
    with Server(live, *arguments) as process:
        process.ready()
        assert len(process.workers()) == 3
        served = {process.seen()["pid"] for _ in range(12)}
        assert served <= {*process.workers()}
        with process.websocket() as ws:
            ws.send("who")
            assert int(ws.recv(10)) in process.workers()
        if preload == "auto":
            process.reload()
            until(lambda: not served & {*process.workers()}, "the old ones are gone")
            assert process.seen()["pid"] not in served
        assert process.stop() == 0


@probes("warmup")
def test_the_warm_up_comes_before_ready(server: str, live: Path) -> None:
    append(
        live / "live" / "views.py",
        "def warm(request):\n"
        "    os.write(1, f'warmed in {os.getpid()}\\n'.encode())\n"
        "    return HttpResponse(status=int(settings.GREETING))\n",
    )
    append(live / "live" / "urls.py", "urlpatterns += [path('warm/', views.warm)]")
    append(live / "live" / "settings.py", "GREETING = '204'")
    arguments = ("--server", server, "--workers", "2", "--warmup", "/warm/")
    with Server(live, *arguments, env={"STRICT": "1"}) as process:
        process.ready()
        lines = process.lines
        ready = next(n for n, line in enumerate(lines) if "ready in" in line)
        assert len([line for line in lines[:ready] if "warmed in" in line]) == 2
        append(live / "live" / "settings.py", "GREETING = '503'")
        process.signal(signal.SIGHUP)
        process.wait_for(r"reload failed.*The warm-up page /warm/ answers 503")
        assert process.stop() == 0
