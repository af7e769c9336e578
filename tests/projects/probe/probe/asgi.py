"""Django, with a lifespan and a websocket that echoes."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "probe.settings")

django = get_asgi_application()


async def application(scope, receive, send):
    match scope["type"]:
        case "lifespan":
            await lifespan(scope, receive, send)
        case "websocket":
            await echo(receive, send)
        case _:
            await django(scope, receive, send)


if "SAY_IMPORTED" in os.environ:
    os.write(1, b"said: imported\n")


def factory():
    """Another application: it names itself in the scope."""

    async def made(scope, receive, send):
        await application({**scope, "made": True}, receive, send)

    return made


def say(text):
    """In one piece, whoever else writes."""
    os.write(1, f"{text}\n".encode())


async def lifespan(scope, receive, send):
    await receive()
    say("lifespan: startup")
    scope["state"]["started"] = "by lifespan"
    await send({"type": "lifespan.startup.complete"})
    await receive()
    say("lifespan: shutdown")
    await send({"type": "lifespan.shutdown.complete"})


async def echo(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        size = len(message.get("text") or message.get("bytes") or "")
        await send({"type": "websocket.send", "text": f"{size} received"})
