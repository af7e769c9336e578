import asyncio
import multiprocessing
import os
import socket
import threading
import time
from urllib.request import urlopen

from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

from djasgi.threads.pool import _pools
from leased.middleware import local, variable
from leased.models import Row

tasks = set()


def say(text):
    """In one piece, whoever else writes."""
    os.write(1, f"{text}\n".encode())


def gate():
    """The connection by which a test holds a request, and sees that it is here."""
    sock = socket.create_connection(("127.0.0.1", int(os.environ["GATE"])))
    sock.sendall(b"%d\n" % os.getpid())
    return sock


async def opened():
    sock = gate()
    sock.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        await reader.read()
    finally:
        writer.close()


def state(request):
    """The threads of this process, and what is under way."""
    names = [thread.name for thread in threading.enumerate()]
    return JsonResponse(
        {
            "pid": os.getpid(),
            "requests": sum(name.startswith("djasgi-request") for name in names),
            "websockets": sum(name.startswith("djasgi-websocket") for name in names),
            "all": len(names),
            # Without this request.
            "leases": sum(pool.leases for pool in _pools) - 1,
            "waiting": sum(pool.waiting for pool in _pools),
            "thread": threading.current_thread().name,
        }
    )


def tenant_now():
    return f"{local.tenant},{variable.get()}"


def sync(request):
    return HttpResponse(tenant_now())


def sleep(request):
    time.sleep(float(request.GET.get("seconds", 0.01)))
    return HttpResponse(tenant_now())


def block(request):
    """Answers when the test opens the gate."""
    with gate() as sock:
        sock.recv(1)
    say("worked")
    return HttpResponse(tenant_now())


def fail(request):
    raise ValueError("meant to fail")


def nested(request):
    """Synchronous code that calls asynchronous code that calls synchronous code."""

    async def inner():
        await asyncio.sleep(0)
        return await asyncio.gather(*[sync_to_async(tenant_now)() for _ in range(3)])

    return HttpResponse(async_to_sync(inner)()[2])


def elsewhere(request):
    async def inner():
        ident = threading.get_ident
        return await sync_to_async(ident, thread_sensitive=False)()

    return HttpResponse(str(async_to_sync(inner)() != threading.get_ident()))


async def awaits(request):
    """The tenant, on both sides of an await."""
    before = await sync_to_async(tenant_now)()
    await asyncio.sleep(float(request.GET.get("seconds", 0.01)))
    after = await sync_to_async(tenant_now)()
    return HttpResponse(before if before == after else f"{before} {after}")


async def rows(request):
    """Reads an open cursor, a chunk a call."""
    numbers = []
    async for row in Row.objects.order_by("id").aiterator(chunk_size=50):
        numbers.append(row.number)
        if len(numbers) % 50 == 0:
            await asyncio.sleep(0.002)
    assert numbers == list(range(len(numbers)))
    return HttpResponse(str(len(numbers)))


def count(request):
    return HttpResponse(str(Row.objects.count()))


async def late(request):
    """A task of this view uses the database after the response."""

    async def work():
        await opened()
        numbers = [row.number async for row in Row.objects.aiterator(chunk_size=50)]
        count = await Row.objects.acount()
        say(f"late: {count} {len(numbers)} {await sync_to_async(hasattr)(local, 'tenant')}")

    await Row.objects.acount()
    task = asyncio.create_task(work())
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return HttpResponse("accepted")


async def soon(request):
    """As `late`, and nobody has to open a gate."""

    async def work():
        await asyncio.sleep(0.01)
        await Row.objects.acount()

    task = asyncio.create_task(work())
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return HttpResponse(await sync_to_async(tenant_now)())


def own(request):
    """Calls its own server, and waits."""
    with urlopen(f"http://127.0.0.1:{request.META['SERVER_PORT']}/state/", timeout=30) as answer:
        return HttpResponse(answer.read())


async def stream(request):
    async def events():
        yield "first\n"
        await asyncio.Event().wait()

    return StreamingHttpResponse(events())


def pieces(request):
    return StreamingHttpResponse(str(number) for number in range(10))


async def held(request):
    """Has a database connection, and awaits."""
    await Row.objects.acount()
    await opened()
    return HttpResponse("held")


def backend(request):
    """The process of PostgreSQL that serves this thread."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid(), pg_sleep(0.005)")
        return HttpResponse(str(cursor.fetchone()[0]))


def fork(request):
    process = multiprocessing.get_context("fork").Process(target=in_child)
    process.start()
    process.join(30)
    return HttpResponse(str(process.exitcode))


def in_child():
    async def main():
        assert await sync_to_async(str)("works") == "works"

    asyncio.run(main())
    assert async_to_sync(asyncio.sleep)(0, "works") == "works"


urlpatterns = [
    path("state/", state),
    path("sync/", sync),
    path("sleep/", sleep),
    path("block/", block),
    path("fail/", fail),
    path("nested/", nested),
    path("elsewhere/", elsewhere),
    path("awaits/", awaits),
    path("rows/", rows),
    path("count/", count),
    path("late/", late),
    path("soon/", soon),
    path("own/", own),
    path("stream/", stream),
    path("pieces/", pieces),
    path("held/", held),
    path("backend/", backend),
    path("fork/", fork),
]
