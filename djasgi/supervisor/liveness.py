"""Which workers are hung: their event loops have not beaten for the hang timeout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from djasgi.supervisor.board import BEAT, Slot

BEATS = 0.25
"""Seconds between two beats of a worker."""

AGAIN = 0.3
"""Seconds until the second look, which a worker that lives has time to answer."""

GAP = 1.0
"""Seconds that this process may be late before it mistrusts its own clock."""


def is_paused(pid: int) -> bool:
    """Whether a process is stopped, or traced by a debugger (proc_pid_stat(5))."""
    with suppress(OSError, ValueError, IndexError):
        status = Path(f"/proc/{pid}/status").read_text()
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        return fields["State"].split()[0] in "Tt" or int(fields["TracerPid"]) > 0
    return False


class Liveness:
    """Looks at the beats when one could be overdue, and twice before it says so.

    A worker that has not beaten yet is booting. One that is stopped, traced or
    spared is not hung. When this process itself was asleep (the machine suspended,
    the container paused), all clocks start anew.
    """

    def __init__(
        self, timeout: float, *, paused: Callable[[int], bool] = is_paused
    ) -> None:
        """`timeout` in seconds; 0 is never."""
        self.timeout = timeout
        self.next_look: float | None = None
        self._paused = paused
        self._forgiven = 0.0
        self._suspects: set[int] = set()
        self._spared: dict[int, float] = {}

    def spare(self, pid: int, slot: Slot) -> None:
        """Do not look at this process again before it has beaten: a debugger holds it."""
        self._spared[pid] = slot[BEAT]

    def look(self, slots: Mapping[int, Slot], now: float) -> list[int]:
        """The processes that are hung; `slots` are those of the live workers."""
        if not self.timeout or (self.next_look is not None and now < self.next_look):
            return []
        if self.next_look is not None and now - self.next_look > GAP:
            self._forgiven = now
            self._suspects.clear()
        hung, suspects, next_look = [], set(), now + self.timeout
        for pid, slot in slots.items():
            beat = slot[BEAT]
            if not beat or self._spared.get(pid) == beat:
                continue
            self._spared.pop(pid, None)
            due = max(beat, self._forgiven) + self.timeout
            if due > now:
                next_look = min(next_look, due)
            elif self._paused(pid):
                next_look = min(next_look, now + GAP)
            else:
                next_look = min(next_look, now + AGAIN)
                suspects.add(pid)
                if pid in self._suspects:
                    hung.append(pid)
        self._suspects = suspects
        self.next_look = next_look
        return hung
