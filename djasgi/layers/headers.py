"""Headers that are added to every response."""

from __future__ import annotations

from collections.abc import Sequence

from djasgi.layers.asgi import App, Message, Receive, Scope, Send

_STARTS = ("http.response.start", "websocket.http.response.start")


class ResponseHeaders:
    """Adds headers to each response that does not have them yet.

    They are defaults: where the application sets a header of the same name, its value
    stands alone, so a view can differ and no header is sent twice by accident. Several
    values given for one name are all sent.
    """

    def __init__(self, app: App, headers: Sequence[tuple[str, str]]) -> None:
        self.app = app
        self.headers = [
            (name.lower().encode("ascii"), value.encode("latin-1"))
            for name, value in headers
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] in _STARTS:
                message = {**message, "headers": self._completed(message)}
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def _completed(self, message: Message) -> list[tuple[bytes, bytes]]:
        headers = list(message.get("headers", ()))
        present = {bytes(name).lower() for name, _ in headers}
        headers += [header for header in self.headers if header[0] not in present]
        return headers
