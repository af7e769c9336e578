"""The prefix under which a proxy mounts the application."""

from __future__ import annotations

from collections.abc import Awaitable
from urllib.parse import quote

from djasgi.layers.asgi import App, Receive, Scope, Send


class RootPath:
    """Sets `root_path`, and `path` so that it begins with it.

    The ASGI specification wants the root path at the beginning of `path` (HTTP and
    WebSocket connection scope), and Django subtracts it to find the view. Some
    proxies take the prefix away before they forward a request and some do not; the
    application sees the same in both cases. A path that begins with the prefix is
    taken for one that still has it, so below `/shop` a proxy that strips cannot reach
    a view whose own path begins with `/shop/` again.
    """

    def __init__(self, app: App, root_path: str) -> None:
        self.app = app
        self.root_path = root_path
        self.below = root_path + "/"
        self.raw = quote(root_path).encode("ascii")

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] in ("http", "websocket"):
            scope = {**scope, "root_path": self.root_path}
            path = scope["path"]
            # Not for "*", the target of OPTIONS for the server as a whole.
            if path.startswith("/") and not self._has_prefix(path):
                scope["path"] = self.root_path + path
                if scope.get("raw_path") is not None:
                    scope["raw_path"] = self.raw + scope["raw_path"]
        return self.app(scope, receive, send)

    def _has_prefix(self, path: str) -> bool:
        return path.startswith(self.below) or path == self.root_path
