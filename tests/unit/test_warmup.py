from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest

from djasgi import warmup
from djasgi.errors import ProjectError
from djasgi.layers.asgi import Message, Receive, Scope, Send
from djasgi.warmup import warm_up


def warmed(app: Any, *paths: str) -> None:
    asyncio.run(warm_up(app, paths))


def answering(status: int, seen: list[Scope]) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)
        message = await receive()
        assert message == {"type": "http.request", "body": b"", "more_body": False}
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    return app


@pytest.mark.parametrize("status", [200, 302, 403, 404, 499])
def test_each_page_is_asked_for_as_a_browser_would(status: int) -> None:
    seen: list[Scope] = []

    warmed(answering(status, seen), "/", "/caf%C3%A9")

    assert [scope["path"] for scope in seen] == ["/", "/café"]
    assert seen[1]["raw_path"] == b"/caf%C3%A9"
    assert seen[0]["method"] == "GET"
    assert seen[0]["scheme"] == "http"
    assert dict(seen[0]["headers"])[b"host"] == b"localhost"


@pytest.mark.parametrize(
    ("hosts", "host"),
    [
        ([], b"localhost"),
        (["*"], b"localhost"),
        (["*.site.test", "www.site.test"], b"www.site.test"),
        ([".site.test"], b"site.test"),
    ],
)
def test_the_host_and_the_scheme_are_those_that_django_answers_to(
    hosts: list[str], host: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"ALLOWED_HOSTS": hosts, "SECURE_SSL_REDIRECT": True}
    monkeypatch.setattr(warmup, "_setting", values.get)
    seen: list[Scope] = []

    warmed(answering(200, seen), "/")

    assert dict(seen[0]["headers"])[b"host"] == host
    assert seen[0]["scheme"] == "https"


@pytest.mark.parametrize("configured", [True, False])
def test_settings_are_read_only_where_django_has_them(
    configured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SimpleNamespace(configured=configured, ALLOWED_HOSTS=["a.test"])
    conf = SimpleNamespace(settings=settings)
    monkeypatch.setitem(sys.modules, "django.conf", cast("Any", conf))

    assert warmup._setting("ALLOWED_HOSTS") == (["a.test"] if configured else None)
    assert warmup._setting("MISSING") is None


def test_a_server_error_is_a_reason_not_to_serve() -> None:
    with pytest.raises(ProjectError, match=r"The warm-up page /shop answers 503"):
        warmed(answering(503, []), "/shop")


def test_an_application_that_raises_is_named_with_the_page() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("no such table")

    text = "The warm-up page /shop raises LookupError: no such table"
    with pytest.raises(ProjectError, match=text) as caught:
        warmed(app, "/shop")
    assert isinstance(caught.value.__cause__, LookupError)


def test_an_application_that_answers_nothing_is_named() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    with pytest.raises(ProjectError, match=r"The warm-up page / is not answered"):
        warmed(app, "/")


def test_the_client_stays_until_the_answer_is_complete() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        waiting: asyncio.Task[Message] = asyncio.ensure_future(receive())
        await asyncio.wait({waiting}, timeout=0.05)
        assert not waiting.done(), "as if it had gone"
        waiting.cancel()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    warmed(app, "/")
