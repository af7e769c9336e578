"""The database connections that Django keeps for each thread."""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from typing import Any

logger = logging.getLogger("djasgi")


def close_connections() -> None:
    """Close the database connections of this thread, if Django has made any."""
    django_db = sys.modules.get("django.db")
    if django_db is None or not hasattr(django_db, "connections"):
        return
    try:
        opened = django_db.connections.all(initialized_only=True)
    except Exception:
        logger.exception("The database connections of a thread could not be listed")
        return
    for connection in opened:
        try:
            connection.close()
        except Exception:
            # Open transactions, servers that are gone: it ends with the thread anyway.
            logger.exception("A database connection of a thread could not be closed")


class OpenConnections:
    """Counts the open database connections of this process, whoever opened them.

    They belong to threads, and no thread can see those of another: so it listens to
    Django's `connection_created`, which is sent whenever one is opened.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: dict[int, weakref.ref[Any]] = {}
        self._watching = False

    def watch(self) -> None:
        """Begin, once the project has imported Django; without Django, nothing."""
        if "django.db" not in sys.modules or self._watching:
            return
        from django.db.backends.signals import connection_created

        connection_created.connect(self._created, weak=False)
        self._watching = True

    def unwatch(self) -> None:
        """Stop listening."""
        if self._watching:
            from django.db.backends.signals import connection_created

            connection_created.disconnect(self._created)
            self._watching = False

    def count(self) -> int:
        """Connections that are open now."""
        with self._lock:
            seen = list(self._opened.items())
        number = 0
        for key, reference in seen:
            wrapper = reference()
            if wrapper is not None and wrapper.connection is not None:
                number += 1
            elif wrapper is None:
                with self._lock:
                    if self._opened.get(key) is reference:
                        del self._opened[key]
        return number

    def _created(self, connection: Any, **_: object) -> None:
        with self._lock:
            self._opened[id(connection)] = weakref.ref(connection)
