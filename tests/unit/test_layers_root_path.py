"""The root path, as Django sees it."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.test import override_settings

from djasgi.layers.asgi import Scope
from djasgi.layers.root_path import RootPath

if not settings.configured:
    settings.configure()


def mounted(root_path: str, path: str, **more: Any) -> Scope:
    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "headers": [(b"host", b"site.test")],
        **more,
    }
    before = dict(scope)
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        seen.append(scope)

    asyncio.run(RootPath(app, root_path)(scope, None, None))  # type: ignore[arg-type]
    assert scope == before, "the caller's scope is never changed"
    return seen[0]


@pytest.mark.parametrize("path", ["/abc", "/pre/abc"], ids=["stripped", "unstripped"])
def test_django_sees_the_same_whether_the_proxy_strips_or_not(path: str) -> None:
    with override_settings(ALLOWED_HOSTS=["site.test"]):
        request = ASGIRequest(mounted("/pre", path), io.BytesIO())

        assert request.path == "/pre/abc"
        assert request.path_info == "/abc"
        assert request.META["SCRIPT_NAME"] == "/pre"
        assert request.build_absolute_uri() == "https://site.test/pre/abc"
        assert request.build_absolute_uri("x") == "https://site.test/pre/x"


@pytest.mark.parametrize(
    ("path", "full"),
    [
        ("/", "/pre/"),
        ("/pre", "/pre"),
        ("/pre/", "/pre/"),
        ("/prefix", "/pre/prefix"),
        ("/a/pre/b", "/pre/a/pre/b"),
        ("*", "*"),
    ],
)
def test_path_begins_with_the_whole_root_path(path: str, full: str) -> None:
    scope = mounted("/pre", path)

    assert (scope["path"], scope["raw_path"]) == (full, full.encode())
    assert scope["root_path"] == "/pre"


def test_raw_path_stays_percent_encoded() -> None:
    scope = mounted("/größe/x y", "/ä b", raw_path=b"/%C3%A4%20b")

    assert scope["path"] == "/größe/x y/ä b"
    assert scope["raw_path"] == b"/gr%C3%B6%C3%9Fe/x%20y/%C3%A4%20b"


def test_raw_path_may_be_missing() -> None:
    scope = mounted("/pre", "/a", raw_path=None)

    assert scope["path"] == "/pre/a"
    assert scope["raw_path"] is None


def test_websockets_are_mounted_too() -> None:
    scope = mounted("/pre", "/chat/", type="websocket")

    assert scope["path"] == "/pre/chat/"
    assert scope["root_path"] == "/pre"


def test_a_lifespan_scope_passes() -> None:
    assert mounted("/pre", "/abc", type="lifespan")["path"] == "/abc"
