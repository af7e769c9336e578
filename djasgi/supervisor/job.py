"""What the supervisor is given to do: the code that serves, and within which bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from djasgi.frozen import Frozen

if TYPE_CHECKING:
    from djasgi.supervisor.worker import Channel

Serve = Callable[[int, "Channel"], None]
"""Serves as the worker of that number until it is told to stop."""


class Preloaded(Frozen):
    """An application that was imported, to be served by forks of this process."""

    serve: Serve
    unforkable: str = ""
    """Why it cannot be, even if it was asked for; empty when it can."""


class Job(Frozen):
    """`serve` does everything in a fresh worker; `load` does the part of it that can
    be done once for all workers, with the project's own checks when its argument, that
    this is a reload, is true. Without `load` every worker is a fresh one.
    """

    serve: Serve
    load: Callable[[bool], Preloaded] | None = None
    preload: Literal["auto", "on", "off"] = "auto"


class Policy(Frozen):
    """How many workers, and how long everything may take, in seconds."""

    workers: int
    graceful_timeout: float
    boot_timeout: float = 60.0
    hang_timeout: float = 0.0
    drain_delay: float = 0.0
