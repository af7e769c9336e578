"""Whatever happens to workers, nobody else's requests are lost.

`make soak` runs it for longer: SOAK_SECONDS, and with the seed that SOAK_SEED says.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.support.chaos import LEAST, Chaos
from tests.support.load import LATE, Load
from tests.support.process import until
from tests.support.server import Server

SECONDS = float(os.environ.get("SOAK_SECONDS", "6"))
RELOADS = int(os.environ.get("SOAK_TIMES", "20")) // 10
SEED = int(os.environ.get("SOAK_SEED") or random.SystemRandom().randrange(10**6))


@pytest.mark.timeout(SECONDS + 110)
def test_only_the_requests_of_a_lost_worker_are_lost(server: str, live: Path) -> None:
    """The seed, which is printed, decides what is done, in which order, and when."""
    arguments = ("--workers", str(LEAST), "--hang-timeout", "3", "--no-access-log")
    with Server(live, "--server", server, *arguments) as process:
        process.ready()
        chaos = Chaos(process, SEED)
        with Load(process.port, SEED) as load:
            chaos.run(SECONDS)
            until(lambda: is_settled(process), f"all is well again\n{process.log}", 60)
        text, lost = chaos.report(load.tally)
        print(f"\n{server}, seed {SEED}, {SECONDS:g} s\n{text}")
        assert process.stop() == 0
    told = "\n".join(map(str, lost))
    assert not lost, f"seed {SEED}\n{text}\n{told}\n{process.log}"
    assert load.tally.answered.total() > SECONDS
    # Nobody else was killed, and no reload failed but those that had to.
    hung = {int(m[1]) for m in process.matches(r"pid (\d+)\) has not answered")}
    assert hung <= chaos.blocked
    for match in process.matches(r"pid (\d+)\).* in time: killed"):
        assert int(match[1]) in chaos.blocked | chaos.killed, process.log
    for match in process.matches("reload failed.*"):
        assert "SyntaxError" in match[0]


@pytest.mark.timeout(100 + 10 * RELOADS)
def test_a_reload_resets_nobody(server: str, live: Path) -> None:
    """Clients that reuse connections, idle for less than the linger of 2 seconds."""
    arguments = ("--workers", "2", "--no-access-log")
    with Server(live, "--server", server, *arguments) as process:
        process.ready()
        with Load(process.port, SEED, {"short": 12, "websocket": 2}) as load:
            for number in range(RELOADS):
                process.reload(count=1 + number)
                until(lambda: is_settled(process), f"the old ones go\n{process.log}")
        assert process.stop() == 0
    tally = load.tally
    lost = [f for f in tally.failures if not (f.reused and f.idle > LATE)]
    print(
        f"\n{server}, {RELOADS} reloads: {tally.answered.total()} answered, of them "
        f"{tally.reused.total()} on reused connections, {len(lost)} lost, "
        f"{len(tally.failures) - len(lost)} idle for too long, "
        f"{tally.ended.total()} websockets told to go, slowest {tally.slowest:.2f} s"
    )
    assert not lost, process.log
    assert tally.reused.total() > 20 * RELOADS


def is_settled(process: Server) -> bool:
    status = process.status()
    states = {worker["state"] for worker in status["workers"]}
    return status["state"] == "serving" and states == {"ready"}
