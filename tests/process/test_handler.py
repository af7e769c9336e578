"""`--handler`: which of Django's handlers serves, whatever the asgi.py looks like."""

from __future__ import annotations

from pathlib import Path

import pytest

from djasgi.compatibility import VERIFIED
from djasgi.options import SERVERS
from tests.support.command import djasgi
from tests.support.probes import probes
from tests.support.server import Server, copy_project, send

each_server = pytest.mark.parametrize("server", SERVERS)

URLS = """\
import sys

from django.http import HttpResponse
from django.urls import path


def called_from(request):
    modules, frame = [], sys._getframe()
    while frame:
        modules.append(frame.f_globals["__name__"])
        frame = frame.f_back
    ours = any(name.startswith("djasgi.handler") for name in modules)
    return HttpResponse("djasgi" if ours else "django")


urlpatterns = [path("", called_from)]
"""

PLAIN = """\
from django.core.asgi import get_asgi_application

application = get_asgi_application()
"""

ROUTED = """\
from django.core import asgi

django = asgi.get_asgi_application()


class Router:
    def __init__(self, routes):
        self.routes = routes

    async def __call__(self, scope, receive, send):
        await self.routes[scope["type"]](scope, receive, send)


async def http(scope, receive, send):
    await django(scope, receive, send)


application = Router({"http": http})
"""

CHANNELS = """\
from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

application = ProtocolTypeRouter({"http": get_asgi_application()})
"""

CONSTRUCTED = """\
import django
from django.core.handlers.asgi import ASGIHandler

django.setup()
application = ASGIHandler()
"""


def project(tmp_path: Path, asgi: str) -> Path:
    root = copy_project("startproject", tmp_path)
    (root / "mysite/urls.py").write_text(URLS)
    setting = 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")\n'
    (root / "mysite/asgi.py").write_text(setting + asgi)
    return root


@each_server
@pytest.mark.parametrize(
    "asgi", [PLAIN, ROUTED, CHANNELS], ids=["plain", "routed", "channels"]
)
def test_every_asgi_file_gets_it(server: str, asgi: str, tmp_path: Path) -> None:
    root = project(tmp_path, asgi)
    with Server(root, "--server", server, "--lifespan", "off") as process:
        assert process.get()[1] == "djasgi"
        assert process.stop() == 0


@probes("handler")
@each_server
def test_djangos_own(server: str, tmp_path: Path) -> None:
    root = project(tmp_path, ROUTED)
    arguments = ("--server", server, "--handler", "django", "--lifespan", "off")
    with Server(root, *arguments) as process:
        assert process.get()[1] == "django"
        assert process.stop() == 0


def test_without_an_asgi_file(tmp_path: Path) -> None:
    root = project(tmp_path, PLAIN)
    (root / "mysite/asgi.py").unlink()
    with Server(root) as process:
        assert process.get()[1] == "djasgi"
        assert process.stop() == 0


def test_handler_that_the_project_constructs_stays_its_own(tmp_path: Path) -> None:
    with Server(project(tmp_path, CONSTRUCTED)) as process:
        assert process.get()[1] == "django"
        assert process.stop() == 0


@pytest.fixture
def newer(tmp_path: Path) -> dict[str, str]:
    """Variables by which the installed Django says that it is of a later release."""
    folder = tmp_path / "newer" / "django-99.1.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: Django\nVersion: 99.1\n"
    )
    return {"PYTHONPATH": str(folder.parent)}


def test_django_that_it_is_not_proven_with(
    tmp_path: Path, newer: dict[str, str]
) -> None:
    root = project(tmp_path, PLAIN)
    newest = ".".join(map(str, VERIFIED[1]))
    reason = f"djasgi's handler is proven with Django 5.2 to {newest}, not with 99.1"

    with Server(root, env=newer) as process:
        process.wait_for(f"{reason}: Django's own serves.")
        assert process.get()[1] == "django"
        assert process.stop() == 0

    for command in ("serve", "explain"):
        asked = djasgi(command, "--handler", "djasgi", cwd=root, env=newer)
        assert asked.returncode == 2
        assert asked.stderr.splitlines() == [
            f"Error: {reason} (--handler).",
            "Leave it out: Django's own serves then.",
        ]
    shown = djasgi("explain", cwd=root, env=newer).stdout
    assert f"{reason}: Django's own serves." in " ".join(shown.split())


NEVER = """\
import asyncio

from django.http import HttpResponse
from django.urls import path


async def never(request):
    print("begun", flush=True)
    await asyncio.sleep(3600)
    return HttpResponse()


urlpatterns = [path("", never)]
"""


@each_server
def test_request_that_is_cancelled_leaves_nothing_behind_in_the_log(
    server: str, tmp_path: Path
) -> None:
    root = project(tmp_path, PLAIN)
    (root / "mysite/urls.py").write_text(NEVER)
    with Server(root, "--server", server, "--graceful-timeout", "0.2") as process:
        with process.connect() as client:
            send(client, "/")
            process.wait_for("begun")
            assert process.stop() == 0
        assert "cancelled 1 request" in process.log
        assert "never retrieved" not in process.log
