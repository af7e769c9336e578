import asyncio
import os
import signal
import time

from django.conf import settings
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse

from live.version import NUMBER

KEPT = []


def index(request):
    return JsonResponse(
        {
            "pid": os.getpid(),
            "version": NUMBER,
            "greeting": settings.GREETING,
            "variable": os.environ.get("VARIABLE"),
            "made": request.scope.get("made"),
        }
    )


async def slow(request, milliseconds):
    await asyncio.sleep(milliseconds / 1000)
    return JsonResponse({"pid": os.getpid()})


async def stream(request, milliseconds):
    """Its length is told, so that a client knows what is missing."""

    async def parts():
        for number in range(10):
            await asyncio.sleep(milliseconds / 10_000)
            yield f"{number}"

    return StreamingHttpResponse(parts(), headers={"Content-Length": "10"})


async def events(request):
    async def parts():
        while True:
            yield f"data: {os.getpid()}\n\n"
            await asyncio.sleep(0.2)

    return StreamingHttpResponse(parts(), content_type="text/event-stream")


async def block(request, milliseconds):
    """Nobody else in this process is served meanwhile."""
    os.write(1, f"blocked: {os.getpid()}\n".encode())
    time.sleep(milliseconds / 1000)
    return HttpResponse("blocked")


async def crash(request, how):
    if how == "exit":
        os._exit(7)
    os.kill(os.getpid(), signal.Signals[how])


def grow(request, mebibytes):
    KEPT.append(b"x" * (mebibytes * 2**20))
    return HttpResponse("grown")
