"""A child process as the supervisor sees it: its pipe, its words and its slot."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from djasgi.errors import DjasgiError
from djasgi.supervisor.board import Slot
from djasgi.supervisor.messages import Inbox, decode_failure

MOST_STACK_LINES = 2000


@dataclass(slots=True, eq=False)
class Child:
    """A process that was not reaped yet, or that has been asked for.

    `number` is 0 for those that are no workers; `pid` is 0 until a worker that somebody
    else forks has said it; `pipe` is None when it was closed, of which `unwatch` is
    told before.
    """

    number: int
    generation: int
    pid: int
    pipe: int | None
    slot: Slot | None = None
    inbox: Inbox = field(default_factory=Inbox)
    failure: DjasgiError | None = None
    stacks: list[str] = field(default_factory=list)
    started: float = field(default_factory=monotonic)
    unwatch: Callable[[int], object] | None = None

    def read(self) -> list[dict[str, Any]]:
        """The messages that have come; closes the pipe at its end."""
        messages: list[dict[str, Any]] = []
        while self.pipe is not None:
            try:
                data = os.read(self.pipe, 65_536)
            except BlockingIOError:
                break
            if not data:
                self.close()
            for message in self.inbox.feed(data):
                if "line" in message:
                    del self.stacks[MOST_STACK_LINES:]
                    self.stacks.append(message["line"])
                    continue
                if message.get("type") == "failed":
                    self.failure = decode_failure(message)
                messages.append(message)
        return messages

    def close(self) -> None:
        if self.pipe is not None:
            if self.unwatch is not None:
                self.unwatch(self.pipe)
            os.close(self.pipe)
            self.pipe = None

    def hand_over(self) -> dict[str, Any]:
        """This child, for the next supervisor, as JSON."""
        return {
            "number": self.number,
            "generation": self.generation,
            "pid": self.pid,
            "pipe": self.pipe,
            "slot": self.slot.number if self.slot is not None else None,
            "rest": b64encode(self.inbox.rest).decode(),
            "started": self.started,
        }
