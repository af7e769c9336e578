import asyncio
import threading

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer, WebsocketConsumer

from leased.middleware import local
from leased.models import Row
from leased.urls import gate, opened, say, tasks


class Sync(WebsocketConsumer):
    """Says in which thread it runs, and whether a request has left something there."""

    def receive(self, text_data):
        if text_data == "block":
            with gate() as sock:
                sock.recv(1)
        name = threading.current_thread().name.rpartition("-")[0]
        self.send(f"{name} {hasattr(local, 'tenant')} {Row.objects.count()}")


class Late(AsyncWebsocketConsumer):
    """Its task uses the database after the disconnect."""

    async def connect(self):
        await self.accept()
        task = asyncio.create_task(self.work())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def work(self):
        await database_sync_to_async(Row.objects.count)()
        await opened()
        say(f"late: {await database_sync_to_async(Row.objects.count)()}")

    async def disconnect(self, code):
        say("disconnected")


class Rows(AsyncWebsocketConsumer):
    """Iterates over a queryset, with a pause a row."""

    async def receive(self, text_data):
        numbers = []
        async for row in Row.objects.order_by("id").aiterator(chunk_size=50):
            numbers.append(row.number)
            if len(numbers) % 50 == 0:
                await asyncio.sleep(0.002)
        assert numbers == list(range(len(numbers)))
        await self.send(str(len(numbers)))
