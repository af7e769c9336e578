"""What may happen to workers, at random, and which requests it may cost.

Whose fault a lost request is: a TCP connection is served by the one worker that has
accepted it, and the kernel knows which one that is. Before a worker is killed it is
stopped, so that it accepts nothing more, and the connections that it has are read from
/proc; one whose event loop is blocked cannot accept any more either. Those are doomed,
by the port of the client. A request that fails on any other connection is djasgi's
fault.
"""

from __future__ import annotations

import os
import random
import signal
import socket
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from tests.support.load import LATE, Failure, Tally
from tests.support.process import until
from tests.support.server import Server, send

LEAST, MOST = 2, 4
"""Workers."""

MOST_PROCESSES = 2 * (2 * MOST + 1) + 6
"""The supervisor and all of its own: the cap of the supervisor, and as much again."""

BLOCKED = 600_000
"""Milliseconds: longer than anybody waits."""


@dataclass(frozen=True, slots=True)
class Doom:
    port: int
    at: float
    """Of the snapshot, by the monotonic clock."""


class Chaos:
    """Does things to the workers of a server that serves the project `live`."""

    def __init__(self, process: Server, seed: int) -> None:
        self.process = process
        self.port = process.port
        self.done: Counter[str] = Counter()
        self.blocked: set[int] = set()
        self.killed: set[int] = set()
        self._dooms: list[Doom] = []
        self._random = random.Random(seed)
        self._workers = LEAST
        self._stopped: dict[int, float] = {}
        self._version = process.cwd / "live" / "version.py"
        self._broken: int | None = None
        self._blockers: list[socket.socket] = []

    def run(self, seconds: float) -> None:
        """One thing after another, for so long; then everything is well again."""
        end = monotonic() + seconds
        actions = {
            self.kill: 4,
            self.stop: 3,
            self.block_shortly: 2,
            self.block: 1,
            self.reload: 3,
            self.reload_broken: 2,
            self.grow: 2,
            self.shrink: 2,
        }
        try:
            while monotonic() < end:
                (action,) = self._random.choices([*actions], [*actions.values()])
                self.done[action.__name__] += action()
                self._wait(self._random.uniform(0.05, 0.8))
        finally:
            self._settle()

    def _wait(self, seconds: float) -> None:
        over = monotonic() + seconds
        until(lambda: self._look() and monotonic() > over, "the time has passed")

    def _look(self) -> bool:
        """Undo what was only for a while, and see to it that there are not too many."""
        for pid in [p for p, due in self._stopped.items() if due <= monotonic()]:
            self._resume(pid)
        if self._broken is not None and self._outcomes() > self._broken:
            self._mend()
        alive = self.process.session()
        if len(alive) > MOST_PROCESSES:
            raise AssertionError(f"{len(alive)} processes")
        if self.process.popen.poll() is not None:
            raise AssertionError(f"it has ended:\n{self.process.log}")
        return True

    def _settle(self) -> None:
        for pid in [*self._stopped]:
            self._resume(pid)
        self._mend()
        for blocker in self._blockers:
            blocker.close()

    # Actions; each returns whether it did something.

    def kill(self) -> bool:
        pid = self._worker()
        self._doom(pid, stopped=True)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.killed.add(pid)
        self._stopped.pop(pid, None)
        return True

    def stop(self) -> bool:
        pid = self._worker()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        self._stopped[pid] = monotonic() + self._random.uniform(0.2, 2)
        return True

    def block_shortly(self) -> bool:
        """Nothing is lost by that."""
        return bool(self._block(self._random.randint(100, 900)))

    def block(self) -> bool:
        """Until the supervisor kills it; one at a time."""
        pid = self._block(BLOCKED)
        if pid:
            self.blocked.add(pid)
            self._doom(pid, stopped=False)
        return bool(pid)

    def reload(self) -> bool:
        self.process.signal(signal.SIGHUP)
        return True

    def reload_broken(self) -> bool:
        if self._broken is None:
            self._broken = self._outcomes()
            self._write("NUMBER =")
        self.process.signal(signal.SIGHUP)
        return True

    def grow(self) -> bool:
        if self._workers >= MOST:
            return False
        self._workers += 1
        self.process.signal(signal.SIGTTIN)
        return True

    def shrink(self) -> bool:
        if self._workers <= LEAST:
            return False
        self._workers -= 1
        self.process.signal(signal.SIGTTOU)
        return True

    def _worker(self) -> int:
        until(lambda: bool(self.process.workers()), "there is a worker")
        return self._random.choice(self.process.workers() or [0])

    def _block(self, milliseconds: int) -> int:
        """The worker that took the request, or 0 if nobody has within a moment."""
        before = len(self.process.matches("^blocked: "))
        with suppress(OSError):
            sock = self.process.connect()
            self._blockers.append(sock)
            send(sock, f"/block/{milliseconds}/")
        with suppress(AssertionError):
            found = self.process.wait_for(r"^blocked: (\d+)", 10, count=before + 1)
            return int(found[1])
        return 0

    def _resume(self, pid: int) -> None:
        del self._stopped[pid]
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def _outcomes(self) -> int:
        return len(self.process.matches(r"INFO +reloaded in|ERROR +reload failed"))

    def _write(self, code: str) -> None:
        """At once: what imports the file sees the one or the other."""
        new = self._version.with_suffix(".new")
        new.write_text(code)
        new.replace(self._version)

    def _mend(self) -> None:
        self._broken = None
        self._write("NUMBER = 1")

    # Whose fault it is

    def _doom(self, pid: int, *, stopped: bool) -> None:
        if stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
            until(lambda: is_stopped(pid), f"{pid} is stopped")
        now = monotonic()
        self._dooms += [Doom(port, now) for port in accepted(pid, self.port)]

    def is_excused(self, failure: Failure) -> bool:
        """Whether it was on a connection of a worker that was killed or blocked."""
        return any(
            doom.port == failure.port and failure.opened <= doom.at <= failure.failed
            for doom in self._dooms
        )

    def report(self, tally: Tally) -> tuple[str, list[Failure]]:
        """All counts, and the failures that nothing excuses."""
        excused = [f for f in tally.failures if self.is_excused(f)]
        late = [
            f for f in tally.failures if f not in excused and f.reused and f.idle > LATE
        ]
        lost = [f for f in tally.failures if f not in excused and f not in late]
        by_kind = Counter(f.kind for f in excused)
        lines = [
            f"done to it: {dict(self.done)}",
            f"answered: {dict(tally.answered)}, {tally.answered.total()} in all",
            f"of them on reused connections: {tally.reused.total()}",
            f"ended early and properly: {dict(tally.ended)}",
            f"lost with a killed or blocked worker: {dict(by_kind)}",
            f"idle for longer than the linger allows: {len(late)}",
            f"reset on reused connections: {sum(f.reused for f in lost)}",
            f"lost otherwise: {len(lost)}",
            f"slowest answer: {tally.slowest:.2f} s",
        ]
        return "\n".join(lines), lost


def is_stopped(pid: int) -> bool:
    """Whether each thread of the process is stopped, or there is none any more."""
    states = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            text = (task / "stat").read_text()
            states.append(text.rpartition(")")[2].split()[0])
    return all(state in "TtZX" for state in states)


def accepted(pid: int, port: int) -> set[int]:
    """The ports of the clients whose connections to `port` the process has."""
    links = set()
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                links.add(str(descriptor.readlink()))
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote = (int(part.partition(":")[2], 16) for part in fields[1:3])
        if local == port and f"socket:[{fields[9]}]" in links:
            found.add(remote)
    return found
