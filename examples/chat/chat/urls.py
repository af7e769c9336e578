"""Every page is a room."""

from __future__ import annotations

from django.urls import path, re_path

from chat.routing import ROOM
from chat.views import room

urlpatterns = [
    path("", room, {"name": "lobby"}),
    re_path(rf"^{ROOM}/$", room),
]
