"""A synchronous view, an asynchronous one, and one that takes its time."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from importlib.metadata import version

import django
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

# Uvicorn comes last: other servers use parts of it.
SERVERS = ("daphne", "hypercorn", "uvicorn")


def home(request: HttpRequest) -> HttpResponse:
    """Who serves this page, and with what."""
    facts = {
        "Server": server(),
        "Settings": os.environ["DJANGO_SETTINGS_MODULE"],
        "Django": django.get_version(),
        "Python": platform.python_version(),
        "Process": os.getpid(),
        "HTTP": request.scope["http_version"],
    }
    return render(request, "home.html", {"facts": facts})


async def asynchronous(request: HttpRequest) -> HttpResponse:
    """Runs on the event loop itself: no thread is taken."""
    loop = type(asyncio.get_running_loop())
    return HttpResponse(
        f"Served on {loop.__module__}.{loop.__qualname__}\n", content_type="text/plain"
    )


async def slow(request: HttpRequest) -> HttpResponse:
    """Stop the server while this page loads: it still arrives."""
    await asyncio.sleep(2)
    return HttpResponse("Worth the wait.\n", content_type="text/plain")


def server() -> str:
    """The name and version of the ASGI server, as far as its imports tell."""
    name = next((name for name in SERVERS if name in sys.modules), None)
    return f"{name} {version(name)}" if name else "unknown"
