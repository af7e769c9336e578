"""The page of a room; the talking is done by its script and the consumer."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


def room(request: HttpRequest, name: str) -> HttpResponse:
    return render(request, "chat/room.html", {"name": name})
