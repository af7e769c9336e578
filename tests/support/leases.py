"""An application that is called as below a server: with a lease on a thread."""

from __future__ import annotations

from typing import Any

from djasgi.threads import Threads
from djasgi.threads.leases import Leases


def with_lease(application: Any, threads: Threads) -> Any:
    """`application`, each call of which has a lease of its own while it runs."""
    leases = Leases(threads)

    async def leasing(scope: Any, receive: Any, send: Any) -> None:
        lease = leases.begin(scope["type"])
        try:
            await application(scope, receive, send)
        finally:
            lease.end()

    return leasing
