"""What is called on the event loop, and what only looks as if it were."""

from __future__ import annotations

from pathlib import Path

import pytest

from djasgi.callgraph.names import Index
from djasgi.callgraph.reach import on_the_loop
from djasgi.checks.base import Finding, findings, named
from djasgi.checks.context import Context
from djasgi.plan import resolve
from djasgi.sources import Sources
from tests.checks.projects import write

HEAD = """\
import asyncio, subprocess, time
import requests
import requests as r
from asgiref.sync import async_to_sync, sync_to_async
from channels.db import database_sync_to_async
from django.contrib.auth import get_user_model
from django.db import connection, transaction
from django.shortcuts import get_object_or_404
from shop.models import Order
User = get_user_model()
session = requests.Session()
"""


def found(
    root: Path, name: str, code: str, files: dict[str, str] | None = None
) -> list[Finding]:
    write(root, {"shop/views.py": HEAD + code}, files or {})
    context = Context(resolve("check", {}, {}, root))
    return findings(named(name), context)


def view(body: str) -> str:
    lines = "\n".join(f"    {line}" for line in body.split("\n"))
    return f"async def view(request, pk=1):\n{lines}\n"


@pytest.mark.parametrize(
    "body",
    [
        "Order.objects.get(pk=pk)",
        "Order.objects.filter(pk=pk).order_by('x').first()",
        "await Order.objects.create()",
        "for order in Order.objects.all(): pass",
        "for n, order in enumerate(Order.objects.filter(pk=pk)): pass",
        "x = [o.pk for o in Order.objects.all()[:9]]",
        "list(Order.objects.all())",
        "qs = Order.objects.all()\nqs = qs.exclude(pk=2)\nreturn len(qs)",
        "qs = Order.objects.filter(pk=pk)\nif qs: pass",
        "if not Order.objects.filter(pk=pk): pass",
        "Order.objects.all()[0]",
        "order = await Order.objects.aget(pk=pk)\norder.save()",
        "order = Order(pk=pk)\norder.delete()",
        "order, new = await Order.objects.aget_or_create(pk=1)\norder.save()",
        "async for order in Order.objects.all():\n    order.save()",
        "get_object_or_404(Order, pk=pk)",
        "User.objects.create_user('x')",
        "with transaction.atomic(): pass",
        "with connection.cursor() as cursor: pass",
        "await sync_to_async(Order.objects.get(pk=1))()",
        "request.model.objects.count()",
        "Order._default_manager.exists()",
        "def inner():\n    return Order.objects.count()\nreturn inner()",
    ],
)
def test_queries_that_are_refused(tmp_path: Path, body: str) -> None:
    assert [f.id for f in found(tmp_path, "E032", view(body))] == ["djasgi.E032"]


@pytest.mark.parametrize(
    "body",
    [
        "await Order.objects.aget(pk=pk)",
        "qs = Order.objects.filter(pk=pk).order_by('x')\nreturn qs",
        "async for order in Order.objects.all(): pass",
        "x = [o async for o in Order.objects.all()]",
        "await sync_to_async(Order.objects.get)(pk=pk)",
        "await sync_to_async(list)(Order.objects.all())",
        "await sync_to_async(lambda: Order.objects.get(pk=pk))()",
        "def inner():\n    return Order.objects.count()\nawait sync_to_async(inner)()",
        "await asyncio.to_thread(Order.objects.count)",
        "qs = Order.objects.all()\nasync for o in qs: pass\nfor o in qs: pass",
        "qs = Order.objects.all()\nawait sync_to_async(list)(qs)\nfor o in qs: pass",
        "orders = await sync_to_async(list)(Order.objects.all())\nfor o in orders: pass",
        "for order in Order.objects.none(): pass",
        "len(request.GET)",
        "request.cache.get('x')",
        "order = await Order.objects.aget(pk=pk)\nawait order.asave()",
        "form.save()",
        "Order.objects.all().iterator()",
        "await Task.objects.create(name='ormar')",
        "names = {'a': Order.objects}",
        "pk.objects if True else 0",
    ],
)
def test_queries_that_are_fine(tmp_path: Path, body: str) -> None:
    assert found(tmp_path, "E032", view(body)) == []


@pytest.mark.parametrize(
    "body",
    [
        "time.sleep(pk)",
        "requests.post('x')",
        "r.get('x')",
        "session.get('x')",
        "s = requests.Session()\ns.post('x')",
        "with requests.Session() as s:\n    s.post('x')",
        "requests.Session().get('x')",
        "subprocess.run(['x'])",
        "import httpx\nhttpx.get('x')",
        "from urllib.request import urlopen\nurlopen('x')",
        "from django.core.mail import send_mail\nsend_mail()",
    ],
)
def test_calls_that_block(tmp_path: Path, body: str) -> None:
    assert [f.id for f in found(tmp_path, "W034", view(body))] == ["djasgi.W034"]


@pytest.mark.parametrize(
    "body",
    [
        "await asyncio.sleep(1)",
        "time.sleep(0)",
        "await asyncio.to_thread(requests.get, 'x')",
        "await sync_to_async(requests.get)('x')",
        "await asyncio.get_running_loop().run_in_executor(None, lambda: time.sleep(1))",
        "time = request.clock\ntime.sleep(1)",
        "request.session.get('x')",
        "session = request.session\nsession.get('x')",
        "subprocess.list2cmdline([])",
        "open('x')",
        "import httpx\nasync with httpx.AsyncClient() as c:\n    await c.get('x')",
        "s = requests.Session()\ns.mount('x', 1)",
    ],
)
def test_calls_that_do_not_block(tmp_path: Path, body: str) -> None:
    assert found(tmp_path, "W034", view(body)) == []


SERVICES = {
    "shop/services.py": """\
import time
from functools import wraps
from channels.db import database_sync_to_async
from shop.helpers import *
from shop import helpers
from shop.models import Order

def wait():
    helpers.deep()

@database_sync_to_async
def in_a_thread():
    time.sleep(1)

def generator():
    time.sleep(1)
    yield 1

_known = None
def remembered():
    global _known
    if _known is None:
        time.sleep(1)
        _known = 1
    return _known

def sometimes(uri=None, deep=False, other=1):
    if uri:
        time.sleep(1)
    if deep and other:
        time.sleep(1)
    if uri is not None:
        time.sleep(1)

class Client:
    def __init__(self):
        self.ready = True

    def send(self):
        time.sleep(1)

class Waiting:
    def __init__(self):
        time.sleep(1)
""",
    "shop/helpers.py": "import time\ndef deep():\n    time.sleep(1)\n",
    "shop/__init__.py": "from shop.services import wait as exported\n",
}


@pytest.mark.parametrize(
    ("call", "count"),
    [
        ("services.wait()", 1),
        ("from shop import exported\nexported()", 1),
        ("await services.in_a_thread()", 0),
        ("for x in services.generator(): pass", 0),
        ("services.remembered()", 0),
        ("services.sometimes()", 0),
        ("services.sometimes(deep=False)", 1),
        ("services.sometimes('x')", 2),
        ("services.sometimes(**options)", 3),
        ("services.Waiting()", 1),
        ("services.Client()", 0),
        ("await sync_to_async(services.wait)()", 0),
        ("threading.Thread(target=services.wait).start()", 0),
    ],
)
def test_calls_are_followed_where_they_lead(
    tmp_path: Path, call: str, count: int
) -> None:
    code = "from shop import services\n" + view(call)
    assert len(found(tmp_path, "W034", code, SERVICES)) == count


def test_the_trail_goes_from_the_view_to_the_fault(tmp_path: Path) -> None:
    code = "from shop import services\n" + view("services.wait()")
    (finding,) = found(tmp_path, "W034", code, SERVICES)
    assert finding.place is not None
    assert (finding.place.file.name, finding.place.inside) == ("views.py", "view")
    assert finding.place.source == "services.wait()"
    steps = [(step.file.name, step.inside) for step in finding.trail]
    assert steps == [("services.py", "wait"), ("helpers.py", "deep")]
    assert finding.title == "An async view blocks the event loop"


@pytest.mark.parametrize(
    ("code", "title"),
    [
        (
            (
                "from channels.generic.websocket import AsyncConsumer\n"
                "class Base(AsyncConsumer): pass\n"
                "class Chat(Base):\n    async def chat_message(self, event):\n"
                "        self.wait()\n    def wait(self):\n        time.sleep(1)\n"
            ),
            "An async consumer blocks the event loop",
        ),
        (
            "class Slow:\n    async def __call__(self, request):\n        time.sleep(1)\n",
            "An async middleware blocks the event loop",
        ),
        (
            (
                "def slow(get_response):\n    async def middleware(request):\n"
                "        time.sleep(1)\n    return middleware\n"
            ),
            "An async middleware blocks the event loop",
        ),
        (
            "async def app(scope, receive, send):\n    time.sleep(1)\n",
            "An ASGI application blocks the event loop",
        ),
        (
            (
                "class Page:\n    async def get(self, request):\n        await self.a()\n"
                "    @anything\n    async def a(self):\n        time.sleep(1)\n"
            ),
            "An async view blocks the event loop",
        ),
    ],
)
def test_what_counts_as_serving(tmp_path: Path, code: str, title: str) -> None:
    assert [f.title for f in found(tmp_path, "W034", code)] == [title]


@pytest.mark.parametrize(
    "code",
    [
        "def view(request):\n    time.sleep(1)\n",
        "async def job(name):\n    time.sleep(1)\n",
        "@async_to_sync\nasync def view(request):\n    time.sleep(1)\n",
        "class Chat(WebsocketConsumer):\n    def receive(self):\n        time.sleep(1)\n",
    ],
)
def test_what_does_not_count_as_serving(tmp_path: Path, code: str) -> None:
    assert found(tmp_path, "W034", code) == []


def test_queries_are_refused_in_every_coroutine(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, "E032", "async def job():\n    Order.objects.get()\n")
    assert "in an async function" in finding.text


@pytest.mark.parametrize(
    ("line", "changed"),
    [
        ("order = Order.objects.get(pk=pk)", "order = await Order.objects.aget(pk=pk)"),
        ("return Order.objects.count()", "return await Order.objects.acount()"),
        ("é = Order.objects.get(pk='é')", "é = await Order.objects.aget(pk='é')"),
    ],
)
def test_a_mechanical_change_comes_as_a_diff(
    tmp_path: Path, line: str, changed: str
) -> None:
    (finding,) = found(tmp_path, "E032", view(line))
    assert finding.diff == f"- {line}\n+ {changed}"


def test_what_is_not_mechanical_has_no_diff(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, "E032", view("name = Order.objects.get(pk=pk).name"))
    assert finding.diff == ""


@pytest.mark.parametrize(
    ("content", "count"),
    [
        ("rows()", 1),
        ("(x for x in y)", 1),
        ("map(str, y)", 1),
        ("streaming_content=rows()", 1),
        ("(x async for x in y)", 0),
        ("arows()", 0),
        ("unknown()", 0),
        ("[b'x']", 0),
        ("given", 0),
    ],
)
def test_streams(tmp_path: Path, content: str, count: int) -> None:
    code = (
        "from django.http import StreamingHttpResponse\n"
        "def rows():\n    yield b''\nasync def arows():\n    yield b''\n"
        f"def export(request, given):\n    return StreamingHttpResponse({content})\n"
    )
    assert len(found(tmp_path, "W035", code)) == count


def test_tests_and_migrations_are_not_looked_at(tmp_path: Path) -> None:
    code = HEAD + view("time.sleep(1)")
    names = ("shop/tests/x.py", "shop/test_views.py", "shop/migrations/x.py")
    assert found(tmp_path, "W034", "", dict.fromkeys(names, code)) == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"async def x(:\n", "not valid Python (line 1)"),
        (b"async def \0", "not valid Python"),
        (b"\xff\xfeasync def", "not valid Python"),
        (b"async def x(): " + b"(" * 5000, "not valid Python"),
        (b"# async def\n" + b"#" * 1_100_000, "too large"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "x.py"
    path.write_bytes(data)
    sources = Sources([tmp_path])
    assert [*on_the_loop(Index(sources))] == []
    assert sources.skipped[path].startswith(reason)


def test_what_imports_or_inherits_in_circles_ends(tmp_path: Path) -> None:
    files = {
        "shop/a.py": "from shop.b import f\nclass A(B): pass\n",
        "shop/b.py": "from shop.a import f\n",
    }
    code = """
from shop.a import f
class A(A):
    async def get(self, request):
        f()
        self.x()
"""
    assert found(tmp_path, "W034", code, files) == []


def test_what_is_nested_beyond_reason_is_left_out(tmp_path: Path) -> None:
    deep = "Order.objects" + ".filter()" * 600 + ".first()"
    attributes = "x" + ".y" * 900 + "()"
    code = view(f"{deep}\n{attributes}") + view("time.sleep(1)").replace(
        "view", "other"
    )
    assert len(found(tmp_path, "W034", code)) == 1
    found(tmp_path, "E032", code)
