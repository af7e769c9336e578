"""The consumers of the tutorial's parts: an echo, a synchronous and an async room."""

import json

from asgiref.sync import async_to_sync
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer


class Steps(WebsocketConsumer):
    """Part 2, before there is a channel layer: only the sender hears it."""

    def receive(self, text_data):
        self.send(json.dumps({"message": json.loads(text_data)["message"]}))


class Chat(WebsocketConsumer):
    """The rest of part 2."""

    def connect(self):
        self.group = "chat_" + self.scope["url_route"]["kwargs"]["room_name"]
        async_to_sync(self.channel_layer.group_add)(self.group, self.channel_name)
        self.accept()

    def disconnect(self, close_code):
        async_to_sync(self.channel_layer.group_discard)(self.group, self.channel_name)

    def receive(self, text_data):
        event = {"type": "chat.message", "message": json.loads(text_data)["message"]}
        async_to_sync(self.channel_layer.group_send)(self.group, event)

    def chat_message(self, event):
        self.send(json.dumps({"message": event["message"]}))


class AsyncChat(AsyncWebsocketConsumer):
    """Part 3."""

    async def connect(self):
        self.group = "chat_async_" + self.scope["url_route"]["kwargs"]["room_name"]
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, close_code):
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive(self, text_data):
        event = {"type": "chat.message", "message": json.loads(text_data)["message"]}
        await self.channel_layer.group_send(self.group, event)

    async def chat_message(self, event):
        await self.send(json.dumps({"message": event["message"]}))
