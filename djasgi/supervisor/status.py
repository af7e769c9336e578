"""What `djasgi status` is told of a supervisor and its workers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from time import monotonic
from typing import Any

from djasgi.supervisor.board import (
    ACTIVE,
    CONNECTIONS,
    LEASES,
    THREADS,
    TOTAL,
    WAITING,
)
from djasgi.supervisor.children import Child
from djasgi.supervisor.job import Policy
from djasgi.supervisor.pool import Worker
from djasgi.supervisor.state import Machine
from djasgi.supervisor.system import proportional_memory

COUNTERS = {
    "requests": TOTAL,
    "active": ACTIVE,
    "threads": THREADS,
    "leases": LEASES,
    "waiting": WAITING,
    "connections": CONNECTIONS,
}
"""What is in the slot of a worker, by the names of the status."""


def supervisor_status(
    machine: Machine,
    children: Sequence[Child],
    policy: Policy,
    *,
    started: float,
    addresses: Sequence[str],
    last_reload: dict[str, Any],
) -> dict[str, Any]:
    """The state of a supervisor and its workers, as JSON."""
    now = monotonic()
    known = machine.pool.workers
    workers = [_worker_status(child, known.get(child.pid), now) for child in children]
    return {
        "pid": os.getpid(),
        "state": machine.state,
        "age": round(now - started, 1),
        "generation": machine.generation,
        "addresses": list(addresses),
        "workers": sorted(workers, key=lambda w: (w["generation"], w["number"])),
        "last_reload": last_reload or None,
        "limits": {
            "boot_timeout": policy.boot_timeout,
            "graceful_timeout": policy.graceful_timeout,
            "drain_delay": policy.drain_delay,
        },
    }


def _worker_status(child: Child, worker: Worker | None, now: float) -> dict[str, Any]:
    slot = child.slot
    return {
        "number": child.number,
        "pid": child.pid,
        "generation": child.generation,
        "state": worker.phase.value if worker else "gone",
        "age": round(now - child.started, 1),
        "memory": proportional_memory(child.pid),
        **{name: int(slot[i]) if slot else 0 for name, i in COUNTERS.items()},
    }
