"""The shape of what accompanies the supervisor, in its one thread."""

from __future__ import annotations

import selectors
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from djasgi.supervisor.events import Action
    from djasgi.supervisor.master import Supervisor


class Service(Protocol):
    """Something that accompanies the supervisor: a control socket, a pid file.

    All of it happens in the one thread: nothing may wait.
    """

    def register(self, selector: selectors.BaseSelector) -> None:
        """Watch descriptors; `data` of each key is called without arguments."""

    def tell(self, supervisor: Supervisor, action: Action) -> None:
        """The supervisor has carried out `action`."""

    def deadline(self) -> float | None:
        """When `tick` is to be called at the latest, by the monotonic clock."""

    def tick(self, supervisor: Supervisor, now: float) -> None:
        """Time has passed."""

    def hand_over(self) -> tuple[dict[str, Any], list[int]]:
        """State and descriptors for the same service of the next supervisor."""

    def close(self) -> None:
        """Leave nothing behind."""
