"""What is measured: a trivial page, and which worker answered."""

from __future__ import annotations

import os
import time

from django.contrib.auth.models import Group
from django.http import HttpRequest, HttpResponse
from django.urls import path


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")


async def pid(request: HttpRequest) -> HttpResponse:
    # Holds the event loop, so that the next connection goes to another worker.
    time.sleep(0.01)  # noqa: TID251, ASYNC251 - see above
    return HttpResponse(str(os.getpid()))


async def who(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(os.getpid()))


async def block(request: HttpRequest) -> HttpResponse:
    # As a view does that waits for another service without awaiting it.
    time.sleep(60)  # noqa: TID251, ASYNC251 - see above
    return HttpResponse("late")


async def awaited(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")


def blocked(request: HttpRequest, milliseconds: int) -> HttpResponse:
    time.sleep(milliseconds / 1000)  # noqa: TID251 - a query, a call of a service
    return HttpResponse("waited")


def account(request: HttpRequest) -> HttpResponse:
    """The user of the session, and one query of the view's own."""
    groups = Group.objects.count()
    return HttpResponse(f"{request.user.get_username()} {groups}")


urlpatterns = [
    path("", page),
    path("awaited", awaited),
    path("blocked/<int:milliseconds>", blocked),
    path("account", account),
    path("pid", pid),
    path("who", who),
    path("block", block),
]
