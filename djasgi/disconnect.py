"""Being told that a client has gone, without a task that waits for it.

A task costs more than the rest of what a small request has to wait for, and most clients
stay. What a server's `receive` waits for are futures; their callbacks carry it on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


class Watch:
    """One call of a `receive`; `told` gets the message, unless it is closed before.

    It is for the `receive` of a server, which asks for no task that runs it. To be made
    in the event loop.
    """

    def __init__(self, receiving: Awaitable[Any], told: Callable[[Any], None]) -> None:
        self._receiving = receiving.__await__()
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._step()

    def _step(self, _: object = None) -> None:
        if self._closed:
            return
        try:
            future = self._receiving.send(None)
        except StopIteration as end:
            self.end(end.value)
        else:
            if future is None:  # a turn of the loop, as `asyncio.sleep(0)`
                self._loop.call_soon(self._step)
            else:
                future.add_done_callback(self._step)

    def end(self, message: Any) -> None:
        """Tell `message`, in place of what has not come."""
        told = self._told
        if not self._closed:
            self.close()
            told(message)

    def close(self) -> None:
        """Stop; what has not come stays with the server."""
        self._closed = True
        self._told = _nobody  # no circle for the garbage collector
        self._receiving.close()


def _nobody(message: Any) -> None:
    pass


class Receiver:
    """Something whose method `receive` is given to an application."""

    def watch(self, told: Callable[[Any], None]) -> Watch:
        """Call `told` with the next message of `receive`, when it comes."""
        raise NotImplementedError


def receiver(receive: Any) -> Receiver | None:
    """What can be watched instead of awaiting this `receive`; None if it must be."""
    owner = getattr(receive, "__self__", None)
    return owner if isinstance(owner, Receiver) else None
