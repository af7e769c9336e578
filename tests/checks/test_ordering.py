"""The hops that are computed are those that Django makes."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest

from djasgi.ordering import SECURITY, Middleware, cheapest, hops
from tests.support.command import environment

MIXED = Middleware("mixed", can_sync=True, can_async=True, hooks=2)
VIEW = Middleware("csrf", can_sync=True, can_async=True, hooks=2, view_hook=True)
PLAIN = Middleware("plain", can_sync=True, can_async=False)
NATIVE = Middleware("native", can_sync=False, can_async=True)
BOTH = Middleware("both", can_sync=True, can_async=True)

COUNT = """
import asyncio, itertools, json, sys
import asgiref.sync as sync
from django.conf import settings
from django.utils.decorators import async_only_middleware, sync_and_async_middleware
from django.utils.deprecation import MiddlewareMixin

count = 0
call = sync.SyncToAsync.__call__
back = sync.AsyncToSync.__call__
async def counted(self, *args, **kwargs):
    global count
    count += 1
    return await call(self, *args, **kwargs)
def counted_back(self, *args, **kwargs):
    global count
    count += 1
    return back(self, *args, **kwargs)
sync.SyncToAsync.__call__ = counted
sync.AsyncToSync.__call__ = counted_back

class mixed(MiddlewareMixin):
    def process_request(self, request): pass
    def process_response(self, request, response): return response
class csrf(mixed):
    def process_view(self, request, *args): pass
def plain(get_response):
    return lambda request: get_response(request)
@async_only_middleware
def native(get_response):
    async def middleware(request):
        return await get_response(request)
    return middleware
@sync_and_async_middleware
def both(get_response):
    if sync.iscoroutinefunction(get_response):
        async def middleware(request):
            return await get_response(request)
    else:
        def middleware(request):
            return get_response(request)
    return middleware
from django.http import HttpResponse
async def asynchronous(request): return HttpResponse()
def synchronous(request): return HttpResponse()
from django.urls import path
urlpatterns = [path("True", asynchronous), path("False", synchronous)]

settings.configure(ROOT_URLCONF="__main__", ALLOWED_HOSTS=["*"], SECRET_KEY="x")
import django; django.setup()
from django.core.handlers.asgi import ASGIHandler

async def ask(handler, name):
    asked = False
    async def receive():
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request"}
        await asyncio.Event().wait()
    async def send(message): pass
    await handler({"type": "http", "method": "GET", "path": "/" + name,
        "headers": [], "query_string": b"", "server": ("x", 80)}, receive, send)

results = []
for stack in json.load(sys.stdin):
    settings.MIDDLEWARE = ["__main__." + name for name in stack]
    handler = ASGIHandler()
    counts = []
    for name in ("True", "False"):
        count = 0
        asyncio.run(ask(handler, name))
        counts.append(count)
    results.append(counts)
print(json.dumps(results))
"""


def test_as_django_counts_them(tmp_path: Path) -> None:
    known = (MIXED, VIEW, PLAIN, NATIVE, BOTH)
    stacks = [list(p) for size in range(4) for p in permutations(known, size)]
    stacks += [[MIXED, MIXED, PLAIN, MIXED], [PLAIN, NATIVE, PLAIN, NATIVE, VIEW]]
    script = tmp_path / "count.py"
    script.write_text(COUNT)
    done = subprocess.run(
        [sys.executable, script],
        input=json.dumps([[one.path for one in stack] for stack in stacks]),
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for stack, (asynchronous, synchronous) in zip(
        stacks, json.loads(done.stdout), strict=True
    ):
        names = [one.path for one in stack]
        assert hops(stack, view_is_async=True) == asynchronous, names
        assert hops(stack, view_is_async=False) == synchronous, names


def test_a_synchronous_one_moves_inwards() -> None:
    stack = (PLAIN, MIXED, MIXED, MIXED)
    better = cheapest(stack, view_is_async=True)
    assert better is not None
    assert better.stack == (MIXED, MIXED, MIXED, PLAIN)
    assert better.hops < hops(stack, view_is_async=True)


@pytest.mark.parametrize(
    "stack",
    [
        (),
        (MIXED, MIXED),
        (MIXED, PLAIN),
        (Middleware(SECURITY, can_sync=True, can_async=True, hooks=2), PLAIN),
        (
            Middleware(
                "whitenoise.middleware.WhiteNoiseMiddleware",
                can_sync=True,
                can_async=False,
            ),
            MIXED,
            MIXED,
        ),
        (PLAIN, Middleware("axes.middleware.AxesMiddleware", True, True, hooks=1)),
    ],
)
def test_what_is_documented_stays_in_its_place(stack: tuple[Middleware, ...]) -> None:
    assert cheapest(stack, view_is_async=True) is None
