from chat import consumers
from django.urls import re_path

websocket_urlpatterns = [
    re_path(r"ws/steps/(?P<room_name>\w+)/$", consumers.Steps.as_asgi()),
    re_path(r"ws/chat/(?P<room_name>\w+)/$", consumers.Chat.as_asgi()),
    re_path(r"ws/async/(?P<room_name>\w+)/$", consumers.AsyncChat.as_asgi()),
]
