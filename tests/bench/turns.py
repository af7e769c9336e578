"""Two servers that are up at the same time, and are measured in turn."""

from __future__ import annotations

from collections.abc import Callable

from tests.bench.commands import Command, Gunicorn
from tests.bench.figures import Figure, interleave
from tests.bench.process import Running, progress, running

Side = Command | Gunicorn
Measure = Callable[[Running], float]


def take_turns(
    figure: Figure,
    ours: Side,
    theirs: Side,
    measure: Measure,
    *,
    rounds: int,
    turns: int = 1,
    warm_up: Measure | None = None,
) -> Figure:
    """Start both sides `rounds` times, each time for so many turns.

    A machine gets slower and faster from one second to the next, and a process is a
    little faster than the next one of the same command: hence short turns, and rounds.
    """
    for _ in range(rounds):
        progress(figure.title)
        with running(ours) as djasgi, running(theirs) as native:
            for process in (djasgi, native):
                process.wait_for_answer()
                if warm_up is not None:
                    warm_up(process)
            interleave(figure, turns, lambda: measure(djasgi), lambda: measure(native))
    return figure
