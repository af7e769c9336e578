"""The hops of a request as read from the project, and as they really are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from djasgi import hops
from tests.support.django_settings import configure

configure()

DEFAULT = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

OWN = """\
from django.utils.deprecation import MiddlewareMixin


class Plain(MiddlewareMixin):
    def process_request(self, request):
        pass

    def process_exception(self, request, exception):
        pass


class Derived(Plain):
    def process_response(self, request, response):
        return response


class Called(MiddlewareMixin):
    def __call__(self, request):
        return super().__call__(request)


class Aware(MiddlewareMixin):
    async def process_view(self, request, *args):
        pass


class Foreign(Somebody):
    pass


class Attribute(somebody.Middleware):
    pass


class Bare:
    pass


def function(get_response):
    return get_response
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "bare.py").write_text("class Plain(MiddlewareMixin):\n    pass\n")
    return tmp_path


def counted(root: Path, settings: str, **modules: str) -> int | None:
    for name, text in ({"settings": settings} | modules).items():
        (root / f"{name}.py").write_text(text)
    return hops.of_django("settings", [root, *sys.path])


def test_default_middleware(root: Path) -> None:
    assert counted(root, f"MIDDLEWARE = {DEFAULT!r}\n") == 16
    assert counted(root, "MIDDLEWARE = ()\n") == 3


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("own.Plain", 4),
        ("own.Derived", 5),
        ("own.Called", None),
        ("own.Aware", None),
        ("own.Foreign", None),
        ("own.Attribute", None),
        ("own.Bare", None),
        ("own.function", None),
        ("own.missing", None),
        ("bare.Plain", None),
        ("missing.Plain", None),
        ("Plain", None),
        ("django.middleware.cache.CacheMiddleware", 5),
    ],
)
def test_middleware_of_each_kind(name: str, count: int | None, root: Path) -> None:
    assert counted(root, f"MIDDLEWARE = [{name!r}]\n") == count


def test_only_what_is_certain_is_counted(root: Path) -> None:
    plain = "MIDDLEWARE = ['own.Plain']\n"
    assert counted(root, "from base import *\n", base=plain) == 4
    assert (
        counted(root, "from base import *\nMIDDLEWARE += ['x']\n", base=plain) is None
    )
    assert counted(root, plain + "MIDDLEWARE.insert(0, 'x')\n") is None
    assert counted(root, "MIDDLEWARE = ['own.Plain', *OTHER]\n") is None
    assert counted(root, "MIDDLEWARE = middleware()\n") is None
    assert counted(root, "DEBUG = True\n") is None
    assert counted(root, "if DEBUG:\n    MIDDLEWARE = ['own.Plain']\n") is None


def test_numbers_are_those_of_a_real_request() -> None:
    from django.core.handlers import asgi
    from django.http import HttpResponse
    from django.test import override_settings
    from django.urls import path

    from djasgi.handler import ASGIHandler
    from tests.support.asgi import Client, urlconf

    folder = [Path(entry) for entry in sys.path]
    names = [name for name in DEFAULT if "contrib" not in name]
    expected = hops.AROUND + sum(hops._hooks(name, folder) or 0 for name in names)

    with (
        urlconf([path("page/", lambda request: HttpResponse())]) as module,
        override_settings(ROOT_URLCONF=module, MIDDLEWARE=names),
    ):
        for handler, count in ((asgi.ASGIHandler, expected), (ASGIHandler, hops.FUSED)):
            client = Client(handler())
            assert client.get() == 200
            assert len(client.hops) == count
