"""Django, with a lifespan and a websocket that says which process it is in."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "live.settings")

django = get_asgi_application()


async def application(scope, receive, send):
    match scope["type"]:
        case "lifespan":
            await lifespan(receive, send)
        case "websocket":
            await echo(receive, send)
        case _:
            await django(scope, receive, send)


async def lifespan(receive, send):
    while True:
        message = await receive()
        os.write(1, f"{message['type']} in {os.getpid()}\n".encode())
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def echo(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": str(os.getpid())})
