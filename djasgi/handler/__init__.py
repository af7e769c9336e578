"""Django's ASGI handler with fewer hops between the event loop and threads.

What can be observed is Django's: hooks, signals, threads, contexts, logs, bytes. Django's
own test suite and a differential test hold it to that. For another launcher than djasgi:

    from djasgi.handler import get_asgi_application

    application = get_asgi_application()
"""

from __future__ import annotations

from typing import Any

import django
from django.core.handlers import asgi

from djasgi.handler import exchange
from djasgi.handler.chain import FusedMiddleware


class ASGIHandler(FusedMiddleware, asgi.ASGIHandler):
    """`django.core.handlers.asgi.ASGIHandler`, with fewer hops."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """Django's class: it is the sender of signals that people have connected to."""
        return asgi.ASGIHandler if type(self) is ASGIHandler else type(self)

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        """Handle the request; see Django's."""
        if self._chain is not None and exchange.is_possible(self):
            await exchange.Exchange(self, self._chain).handle(scope, receive, send)
        else:
            await super().handle(scope, receive, send)


def get_asgi_application() -> ASGIHandler:
    """The ASGI application of the settings, as Django's function of this name."""
    django.setup(set_prefix=False)
    return ASGIHandler()
