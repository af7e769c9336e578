import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "leased.settings")

from django.core.asgi import get_asgi_application

django = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter
from django.urls import path

from leased import consumers

application = ProtocolTypeRouter(
    {
        "http": django,
        "websocket": URLRouter(
            [
                path("sync/", consumers.Sync.as_asgi()),
                path("late/", consumers.Late.as_asgi()),
                path("rows/", consumers.Rows.as_asgi()),
            ]
        ),
    }
)
