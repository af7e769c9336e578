"""Each check: a project that it is about, and one that looks alike and is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from djasgi.checks.base import Needs, all_checks
from tests.checks.projects import ASGI, settings, views, write
from tests.checks.zygote import Zygote

UVICORN = "web: uvicorn config.asgi:application --host 0.0.0.0 --port $PORT"
DATABASE = """
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "x.db", %s}}
"""
DOCKER = "FROM python:3.13\nENV DJANGO_SETTINGS_MODULE=config.settings\n"
COMPOSE = "services:\n  web:\n    image: shop\n    ports: ['80:8000']\n    %s\n"
CHANNELS = """
import os
from django.core.asgi import get_asgi_application
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
http = get_asgi_application()
from channels.auth import AuthMiddlewareStack
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.urls import path
class Consumer(AsyncWebsocketConsumer):
    async def connect(self):
        await self.accept()
routes = URLRouter([path("ws", Consumer.as_asgi())])
application = ProtocolTypeRouter({"http": http, "websocket": %s})
"""
AUTH = settings(
    'INSTALLED_APPS += ["django.contrib.auth", "django.contrib.contenttypes", '
    '"django.contrib.sessions"]\n' + DATABASE % ""
)
STATIC = settings(
    'INSTALLED_APPS += ["django.contrib.staticfiles"]\nSTATIC_URL = "static/"\n'
)
IN_MEMORY = settings(
    'CHANNEL_LAYERS = {"default": '
    '{"BACKEND": "channels.layers.InMemoryChannelLayer"}}\n'
)
CACHED = (
    'INSTALLED_APPS += ["django.contrib.sessions"]\n'
    'MIDDLEWARE += ["django.contrib.sessions.middleware.SessionMiddleware"]\n'
    'SESSION_ENGINE = "django.contrib.sessions.backends.cache"\n'
)
REDIS = (
    'CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", '
    '"LOCATION": "redis://cache"}}\n'
)
PLAIN_MIDDLEWARE = {
    "shop/middleware.py": "def plain(get_response):\n"
    "    def middleware(request):\n        return get_response(request)\n"
    "    return middleware\n"
}
ASYNC_HOME = {
    "shop/views.py": "from django.http import HttpResponse\n"
    "async def home(request):\n    return HttpResponse()\n"
}
LOGGING = 'LOGGING = {"version": 1, "disable_existing_loggers": %s}\n'


@dataclass(frozen=True)
class Case:
    """`bad` has the finding and `good` has not; options are the same unless given."""

    id: str
    bad: Mapping[str, str]
    good: Mapping[str, str]
    args: tuple[str, ...] = ()
    good_args: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    name: str = ""


CASES = [
    Case(
        "E001",
        {
            "Procfile": UVICORN,
            "config/asgi.py": "from shop.routing import routes\n" + ASGI,
            "shop/routing.py": "from shop import consumers\nroutes = []\n",
            "shop/consumers.py": "from shop.models import Order\n",
        },
        {
            "Procfile": UVICORN,
            "config/asgi.py": ASGI + "from shop.routing import routes\n",
            "shop/routing.py": "from shop import consumers\nroutes = []\n",
            "shop/consumers.py": "from shop.models import Order\n",
        },
    ),
    Case(
        "E001",
        {
            "Procfile": UVICORN,
            "config/asgi.py": "from django.contrib.auth.models import User\n" + ASGI,
            **AUTH,
        },
        {
            # djasgi sets Django up first.
            "Procfile": "web: djasgi serve --env production",
            "config/asgi.py": "from shop.models import Order\n" + ASGI,
        },
        name="djasgi itself",
    ),
    Case(
        "E002",
        {
            "Dockerfile": 'FROM python\nCMD ["uvicorn", "config.asgi:application"]',
            "config/asgi.py": "from shop.flags import FLAG\n" + ASGI,
            "shop/flags.py": "from django.conf import settings\nFLAG = settings.DEBUG\n",
        },
        {
            "Dockerfile": 'FROM python\nCMD ["uvicorn", "config.asgi:application"]',
            "config/asgi.py": "from shop.flags import flag\n" + ASGI,
            "shop/flags.py": "from django.conf import settings\n"
            "def flag():\n    return settings.DEBUG\n",
        },
    ),
    Case(
        "W003",
        {"config/wsgi.py": ASGI.replace("config.settings", "config.production")},
        {"config/wsgi.py": ASGI},
    ),
    Case(
        "E004",
        settings('ASGI_APPLICATION = "config.asgi.aplication"\n'),
        settings('ASGI_APPLICATION = "config.asgi.application"\n'),
        args=("config.asgi:application",),
    ),
    Case(
        "E005",
        {
            **settings('ASGI_APPLICATION = "config.routing.application"\n'),
            "config/routing.py": CHANNELS % "routes",
        },
        settings('ASGI_APPLICATION = "config.asgi.application"\n'),
        args=("config.asgi:application",),
    ),
    Case("E006", settings("DEBUG = True\n"), {}, args=("--deploy",)),
    Case(
        "E006",
        {
            "config/asgi.py": ASGI.replace("config.settings", "config.local"),
            "config/local.py": "from config.settings import *\n",
        },
        {
            "config/asgi.py": ASGI.replace("config.settings", "config.local"),
            "config/local.py": "from config.settings import *\n",
        },
        args=("--deploy",),
        good_args=("--deploy", "--settings", "config.local"),
        name="chosen by nobody",
    ),
    Case(
        "E007",
        {"Dockerfile": DOCKER + "ENV DJANGO_ALLOW_ASYNC_UNSAFE=true\n"},
        {
            "Dockerfile": DOCKER + "# ENV DJANGO_ALLOW_ASYNC_UNSAFE=true\n",
            "Dockerfile.dev": DOCKER + "ENV DJANGO_ALLOW_ASYNC_UNSAFE=true\n",
        },
    ),
    Case(
        "W008",
        settings('ALLOWED_HOSTS = ["*"]\n'),
        settings('ALLOWED_HOSTS = [".example.com"]\n'),
        args=("--deploy",),
    ),
    Case(
        "W009",
        {
            **settings('MIDDLEWARE += ["silk.middleware.SilkyMiddleware"]\n'),
            "silk/middleware.py": "def SilkyMiddleware(get_response):\n"
            "    return get_response\n",
        },
        {
            **settings('MIDDLEWARE += ["silk.middleware.SilkyMiddleware"]\n'),
            "silk/middleware.py": "def SilkyMiddleware(get_response):\n"
            "    return get_response\n",
        },
        args=("--deploy",),
        good_args=(),
    ),
    Case(
        "W010",
        {**settings(LOGGING % True), "Procfile": UVICORN},
        {**settings(LOGGING % False), "Procfile": UVICORN},
    ),
    Case("E011", IN_MEMORY, IN_MEMORY, args=("--workers", "4"), good_args=()),
    Case(
        "E011",
        {**IN_MEMORY, "Procfile": f"{UVICORN} --workers 3"},
        {**IN_MEMORY, "Procfile": UVICORN},
        name="native workers",
    ),
    Case(
        "E012",
        {**AUTH, "config/asgi.py": CHANNELS % "AuthMiddlewareStack(routes)"},
        {
            **AUTH,
            "config/asgi.py": CHANNELS
            % "AllowedHostsOriginValidator(AuthMiddlewareStack(routes))",
        },
    ),
    Case(
        "E012",
        {**AUTH, "config/asgi.py": CHANNELS % "AuthMiddlewareStack(routes)"},
        {**AUTH, "config/asgi.py": CHANNELS % "routes"},
        name="nobody is known",
    ),
    Case(
        "E021",
        {**settings(DATABASE % '"CONN_MAX_AGE": 60'), "Procfile": UVICORN},
        {
            **settings(DATABASE % '"CONN_MAX_AGE": 60'),
            "Procfile": "web: gunicorn config.wsgi",
        },
    ),
    Case(
        "E022",
        settings(DATABASE % '"CONN_MAX_AGE": 60, "OPTIONS": {"pool": True}'),
        settings(DATABASE % '"OPTIONS": {"pool": True}'),
    ),
    Case(
        "W023",
        settings(DATABASE % ""),
        settings(DATABASE % '"OPTIONS": {"init_command": "PRAGMA journal_mode=WAL;"}'),
        args=("--workers", "2"),
    ),
    Case(
        "W023",
        settings(DATABASE % ""),
        settings(DATABASE % ""),
        args=("--workers", "2"),
        good_args=(),
        name="one worker",
    ),
    Case(
        "E031",
        {**settings(DATABASE % '"ATOMIC_REQUESTS": True'), **ASYNC_HOME},
        {
            **settings(DATABASE % '"ATOMIC_REQUESTS": True'),
            "shop/views.py": "from django.db import transaction\n"
            + ASYNC_HOME["shop/views.py"].replace(
                "async def", "@transaction.non_atomic_requests\nasync def"
            ),
        },
    ),
    Case(
        "E032",
        views("async def cart(request):\n    return Order.objects.get(pk=1)\n"),
        views("async def cart(request):\n    return await Order.objects.aget(pk=1)\n"),
    ),
    Case(
        "I033",
        {
            **PLAIN_MIDDLEWARE,
            **ASYNC_HOME,
            **settings('MIDDLEWARE.insert(0, "shop.middleware.plain")\n'),
        },
        {
            **PLAIN_MIDDLEWARE,
            **ASYNC_HOME,
            **settings('MIDDLEWARE.append("shop.middleware.plain")\n'),
        },
        args=("--handler", "django"),
    ),
    Case(
        "I033",
        {
            **PLAIN_MIDDLEWARE,
            **ASYNC_HOME,
            **settings('MIDDLEWARE.insert(0, "shop.middleware.plain")\n'),
        },
        {
            **PLAIN_MIDDLEWARE,
            **ASYNC_HOME,
            **settings('MIDDLEWARE.insert(0, "shop.middleware.plain")\n'),
        },
        args=("--handler", "django"),
        good_args=(),
        name="djasgi's handler",
    ),
    Case(
        "W034",
        views("import time\nasync def cart(request):\n    time.sleep(1)\n"),
        views("import asyncio\nasync def cart(request):\n    await asyncio.sleep(1)\n"),
    ),
    Case(
        "W035",
        views(
            "from django.http import StreamingHttpResponse\ndef rows():\n    yield b''\n"
            "def export(request):\n    return StreamingHttpResponse(rows())\n"
        ),
        views(
            "from django.http import StreamingHttpResponse\n"
            "async def rows():\n    yield b''\n"
            "def export(request):\n    return StreamingHttpResponse(rows())\n"
        ),
    ),
    Case(
        "E041",
        {**STATIC, "shop/static/a.css": ""},
        {
            "config/settings.py": STATIC["config/settings.py"]
            + 'STATIC_ROOT = BASE_DIR / "static"\n',
            "shop/static/a.css": "",
        },
        args=("--deploy",),
    ),
    Case(
        "E051", {}, {}, args=("--deploy", "--no-proxy-headers"), good_args=("--deploy",)
    ),
    Case(
        "E051",
        {},
        settings('SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")\n'),
        args=("--deploy",),
        env={"PORT": "8000"},
        name="a platform's router",
    ),
    Case(
        "W052",
        {},
        {},
        args=("--deploy", "--bind", "0.0.0.0:80", "--forwarded-allow-ips", "*"),
        good_args=("--deploy", "--bind", "127.0.0.1:80", "--forwarded-allow-ips", "*"),
    ),
    Case(
        "W053",
        {},
        {},
        args=("--deploy",),
        good_args=("--deploy", "--forwarded-allow-ips", "10.0.0.0/8"),
        env={"PORT": "8000"},
    ),
    Case(
        "W054",
        {"Procfile": "web: hypercorn config.asgi:application -b 0.0.0.0:$PORT"},
        {
            "Procfile": "web: hypercorn config.asgi:application -b 0.0.0.0:$PORT",
            "config/asgi.py": f"{ASGI}# ProxyFixMiddleware(application)\n",
        },
    ),
    Case(
        "W055",
        {"Procfile": UVICORN},
        {"Procfile": f"{UVICORN} --timeout-keep-alive 95"},
    ),
    Case(
        "W055",
        {},
        {},
        args=("--deploy", "--keep-alive", "5"),
        good_args=("--deploy",),
        env={"PORT": "8000"},
        name="djasgi itself",
    ),
    Case(
        "W056",
        settings('FORCE_SCRIPT_NAME = "/shop/"\n'),
        settings('FORCE_SCRIPT_NAME = "/shop"\n'),
    ),
    Case(
        "W056",
        settings('FORCE_SCRIPT_NAME = "/shop"\n'),
        settings('FORCE_SCRIPT_NAME = "/shop"\n'),
        args=("--root-path", "/store"),
        good_args=("--root-path", "/shop"),
        name="two prefixes",
    ),
    Case("E061", settings(CACHED), settings(CACHED + REDIS), args=("--workers", "2")),
    Case(
        "W062",
        settings('REST_FRAMEWORK = {"DEFAULT_THROTTLE_CLASSES": ["shop.Throttle"]}\n'),
        settings('REST_FRAMEWORK = {"DEFAULT_THROTTLE_CLASSES": []}\n'),
        args=("--workers", "2"),
    ),
    Case(
        "W062",
        {"shop/api.py": "from django_ratelimit.decorators import ratelimit\n"},
        {
            "shop/api.py": "from django_ratelimit.decorators import ratelimit\n",
            **settings(REDIS),
        },
        args=("--workers", "2"),
        name="django-ratelimit",
    ),
    Case(
        "W063",
        {
            **settings('INSTALLED_APPS += ["django_prometheus"]\n'),
            "django_prometheus/__init__.py": "",
        },
        {
            **settings('INSTALLED_APPS += ["django_prometheus"]\n'),
            "django_prometheus/__init__.py": "",
            "Dockerfile": DOCKER + "ENV PROMETHEUS_MULTIPROC_DIR=/tmp/metrics\n",
        },
        args=("--workers", "2"),
    ),
    Case(
        "W065",
        {"config/asgi.py": CHANNELS % "routes", "Procfile": UVICORN},
        {
            "config/asgi.py": CHANNELS % "routes",
            "Procfile": f"{UVICORN} --timeout-graceful-shutdown 20",
        },
    ),
    Case(
        "W066",
        {"compose.yaml": COMPOSE % "command: djasgi serve --bind 0.0.0.0:8000"},
        {
            "compose.yaml": COMPOSE % "command: djasgi serve --bind 0.0.0.0:8000"
            "\n    stop_grace_period: 1m",
        },
    ),
    Case(
        "W066",
        {"fly.toml": 'kill_timeout = 10\n[processes]\nweb = "djasgi serve"\n'},
        {"fly.toml": 'kill_timeout = 60\n[processes]\nweb = "djasgi serve"\n'},
        name="fly.io",
    ),
    Case(
        "E067",
        {"Procfile": f"{UVICORN} --limit-max-requests 1000"},
        {"Procfile": f"{UVICORN} --limit-max-requests 1000 --workers 2"},
    ),
    Case(
        "E071",
        {"Procfile": "web: gunicorn config.asgi:application"},
        {"Procfile": "web: gunicorn config.asgi -k uvicorn_worker.UvicornWorker"},
    ),
    Case(
        "E071",
        {"Dockerfile": f'{DOCKER}CMD ["granian", "config.asgi:application"]'},
        {
            "Dockerfile": f'{DOCKER}CMD ["granian", "--interface", "asgi", "config.asgi"]'
        },
        name="granian",
    ),
    Case(
        "W072",
        {"Procfile": "web: gunicorn config.asgi -k uvicorn.workers.UvicornWorker"},
        {"Procfile": "web: gunicorn config.asgi -k uvicorn_worker.UvicornWorker"},
    ),
    Case(
        "E073",
        {"Dockerfile": f'{DOCKER}CMD ["uvicorn", "config.asgi:application"]'},
        {
            "Dockerfile": f'{DOCKER}CMD ["uvicorn", "config.asgi:application", '
            '"--host", "0.0.0.0"]'
        },
    ),
    Case(
        "E073",
        {"Procfile": "web: daphne config.asgi:application -b 0.0.0.0 -p 8000"},
        {"Procfile": "web: daphne config.asgi:application -b 0.0.0.0 -p $PORT"},
        name="a fixed port",
    ),
    Case(
        "E073",
        {"compose.yaml": COMPOSE % "command: djasgi serve"},
        {"compose.yaml": COMPOSE % "command: djasgi serve --bind 0.0.0.0:8000"},
        name="djasgi itself",
    ),
    Case(
        "W074",
        {
            "Dockerfile": f'{DOCKER}COPY start.sh /start\nCMD ["/start"]',
            "start.sh": "#!/bin/sh\nuvicorn config.asgi:application --host 0.0.0.0\n",
        },
        {
            "Dockerfile": f'{DOCKER}COPY start.sh /start\nCMD ["/start"]',
            "start.sh": "#!/bin/sh\nexec uvicorn config.asgi:application --host ::\n",
        },
    ),
    Case(
        "W074",
        {"Dockerfile": f"{DOCKER}CMD python manage.py migrate && djasgi serve"},
        {"Dockerfile": f"{DOCKER}CMD python manage.py migrate && exec djasgi serve"},
        name="the shell form",
    ),
    Case(
        "E075",
        {"Procfile": "web: python manage.py runserver 0.0.0.0:$PORT"},
        {
            "compose.yaml": COMPOSE % "command: python manage.py runserver 0.0.0.0:8000"
            "\n    volumes: ['.:/app']",
            "Dockerfile.dev": f"{DOCKER}CMD python manage.py runserver",
            "Procfile.dev": "web: python manage.py runserver",
        },
    ),
]


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.id} {case.name}".strip()
)
def test_is_found(case: Case, tmp_path: Path, zygote: Zygote) -> None:
    root = write(tmp_path, case.bad)
    result = zygote.run(
        "check", "--only", case.id, "--format", "json", *case.args,
        cwd=root, env=case.env,
    )  # fmt: skip
    assert result.code in (0, 1), result.stderr
    assert f"djasgi.{case.id}" in result.ids, result.stdout
    assert result.json["skipped"] == []
    assert result.code == (1 if case.id[0] == "E" else 0)


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.id} {case.name}".strip()
)
def test_is_not_found(case: Case, tmp_path: Path, zygote: Zygote) -> None:
    root = write(tmp_path, case.good)
    args = case.args if case.good_args is None else case.good_args
    result = zygote.run(
        "check", "--only", case.id, "--format", "json", *args, cwd=root, env=case.env
    )
    assert result.code == 0, result.stderr
    assert result.ids == []
    assert result.json["skipped"] == []


def test_every_check_has_a_case() -> None:
    elsewhere = {"djasgi.W064"}  # takes five seconds: see test_checking
    wanted = {
        check.id for check in all_checks().values() if check.needs is not Needs.SERVED
    }
    assert {f"djasgi.{case.id}" for case in CASES} == wanted - elsewhere


def test_the_basic_project_is_clean(tmp_path: Path, zygote: Zygote) -> None:
    result = zygote.run("check", "--deploy", "--format", "json", cwd=write(tmp_path))
    assert (result.code, result.ids) == (0, []), result.stdout
    assert result.json["skipped"] == []
