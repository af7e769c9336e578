"""Which websocket path belongs to which consumer."""

from __future__ import annotations

from django.urls import re_path

from chat.consumers import ChatConsumer

# Channels accepts these characters, and fewer than 100 of them, in a group's name.
ROOM = r"(?P<name>[A-Za-z0-9_-]{1,50})"

websocket_urlpatterns = [re_path(rf"^ws/{ROOM}/$", ChatConsumer.as_asgi())]
