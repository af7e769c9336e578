"""What every worker of a plan is given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from djasgi.frozen import Frozen
from djasgi.plan import LaunchPlan
from djasgi.supervisor.sockets import Listeners

if TYPE_CHECKING:
    from djasgi.tls import Tls  # not at run time: `ssl` is only for those who ask


class Duty(Frozen):
    """The plan, and what the supervisor has made of it."""

    plan: LaunchPlan
    listeners: Listeners
    tls: Tls | None
    color: bool
    terminal: bool
