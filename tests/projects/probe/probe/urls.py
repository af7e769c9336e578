import asyncio
import os
import socket
import sys
import threading

from asgiref.sync import sync_to_async
from django.conf import settings
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path


async def index(request):
    """What the application sees of the request and of its surroundings."""
    scope = request.scope
    return JsonResponse(
        {
            "settings": settings.SETTINGS_MODULE,
            "pid": os.getpid(),
            "loop": type(asyncio.get_running_loop()).__module__,
            "servers": [s for s in ("uvicorn", "hypercorn", "daphne") if s in sys.modules],
            "path": request.path,
            "path_info": request.path_info,
            "uri": request.build_absolute_uri(),
            "remote": request.META.get("REMOTE_ADDR"),
            "secure": request.is_secure(),
            "order": scope.get("order"),
            "thread": (await sync_to_async(threading.current_thread)()).name,
            "made": scope.get("made", False),
            "state": scope.get("state"),
        }
    )


def variable(request, name):
    return HttpResponse(os.environ.get(name, "(unset)"))


def say(request, word):
    """Leaves a mark in the output."""
    os.write(1, f"said: {word}\n".encode())
    return HttpResponse(word)


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


async def hold(request):
    """Answers when the test opens the gate."""
    await opened()
    return HttpResponse("held")


async def block(request):
    """The same, and nobody else in this process is served meanwhile."""
    with gate() as sock:
        sock.recv(1)
    return HttpResponse("blocked")


def sync(request):
    """As `block`, in a thread."""
    with gate() as sock:
        sock.recv(1)
    return HttpResponse("worked")


async def stream(request):
    async def parts():
        yield "first,"
        await opened()
        yield "last"

    return StreamingHttpResponse(parts())


def nodelay(request):
    """Whether what is written to this client leaves at once, not with what follows."""
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as sock:
                if sock.getpeername()[:2] == tuple(request.scope["client"]):
                    option = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                    return JsonResponse(bool(option), safe=False)
        except OSError:
            pass
    return JsonResponse("the connection is not among the descriptors", safe=False)


urlpatterns = [
    path("", index),
    path("variable/<name>/", variable),
    path("say/<word>/", say),
    path("hold/", hold),
    path("block/", block),
    path("sync/", sync),
    path("stream/", stream),
    path("nodelay/", nodelay),
]
