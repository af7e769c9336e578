"""What Django's `handle` does with tasks, with one less: that which waits for the client.

`handle` starts a task that listens for the client's disconnect, and ends it when the
response is there, for each request. Where what it would await can be watched, it gets a
`Listener` in its place, and in place of `asyncio` a namespace that knows what that is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from django.core.exceptions import RequestAborted

from djasgi.disconnect import Receiver

_KNOWN = {"create_task", "wait", "TaskGroup", "FIRST_COMPLETED", "CancelledError"}
"""What `handle` has of asyncio: tasks up to Django 6.0, a group of them since 6.1."""


def is_known(handle: Any) -> bool:
    """Whether all that this `handle` does with the task that listens is known here."""
    names = set(handle.__code__.co_names)
    return bool(names & {"wait", "TaskGroup"}) and all(
        name in _KNOWN or name not in asyncio.__all__ for name in names
    )


class Listener:
    """Listens for the disconnect; it looks like a task that does."""

    def __init__(self, receiver: Receiver, exchange: Any) -> None:
        self._exchange = exchange
        self._message: Any = None
        self._tell: Any = None
        self._watch = receiver.watch(self._told)

    def _told(self, message: Any) -> None:
        # For a request that is refused Django does not listen.
        if not self._exchange.refused:
            self._message = message
            if self._tell is not None:
                self._tell()

    def when_done(self, tell: Any) -> None:
        """Call `tell` in the next turn of the event loop in which this is done."""
        if self._message is None:
            self._tell = tell
        else:
            asyncio.get_running_loop().call_soon(tell)

    def done(self) -> bool:
        return self._message is not None

    def error(self) -> BaseException:
        """What Django's own listener raises."""
        if self._message["type"] == "http.disconnect":
            return RequestAborted()
        kind = self._message["type"]
        return AssertionError(f"Invalid ASGI message after request body: {kind}")

    def result(self) -> None:
        raise self.error()

    def cancel(self) -> None:
        self._watch.close()
        self._tell = None  # no circle for the garbage collector

    def __await__(self) -> Any:
        """As a task that was cancelled."""
        raise asyncio.CancelledError


class Asyncio:
    """The module `asyncio`, for `handle`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    @staticmethod
    def create_task(coroutine: Any) -> Any:
        if isinstance(coroutine, Listener):
            return coroutine
        return asyncio.create_task(coroutine)

    @staticmethod
    async def wait(tasks: Sequence[Any], *, return_when: str) -> None:
        """Wait for the first of the listener and the task that responds."""
        listener, responding = tasks
        first = asyncio.get_running_loop().create_future()

        def tell(_: object = None) -> None:
            if not first.done():
                first.set_result(None)

        listener.when_done(tell)
        responding.add_done_callback(tell)
        try:
            await first
        except asyncio.CancelledError:
            listener.cancel()  # nobody will
            raise

    class TaskGroup:
        """A group of the listener and of the task that it is made in."""

        _listener: Listener
        _task: asyncio.Task[Any]
        _gone = False

        async def __aenter__(self) -> Self:
            task = asyncio.current_task()
            assert task is not None  # noqa: S101  # this is a coroutine
            self._task = task
            return self

        def create_task(self, listener: Listener) -> Listener:
            self._listener = listener
            listener.when_done(self._tell)
            return listener

        def _tell(self) -> None:
            if not self._gone:
                self._gone = True
                self._task.cancel()

        async def __aexit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            traceback: TracebackType | None,
        ) -> None:
            self._listener.cancel()
            if isinstance(error, (SystemExit, KeyboardInterrupt)):
                return
            errors = [self._listener.error()] if self._gone else []
            if self._gone:
                self._task.uncancel()
            if error is not None and not isinstance(error, asyncio.CancelledError):
                errors.append(error)
            if errors:
                if self._task.cancelling():  # by somebody else, who is to be heard
                    self._task.uncancel()
                    self._task.cancel()
                raise BaseExceptionGroup("request and listener", errors) from None
