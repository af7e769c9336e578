"""What was measured, beside what it should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Literal


@dataclass(frozen=True, slots=True)
class Target:
    """A limit for the ratio djasgi / native, or for djasgi's own value."""

    bound: Literal["at most", "at least"]
    limit: float
    of: Literal["ratio", "value"] = "ratio"

    def met(self, figure: float) -> bool:
        if self.bound == "at most":
            return figure <= self.limit
        return figure >= self.limit

    def __str__(self) -> str:
        sign = "≤" if self.bound == "at most" else "≥"
        return f"{sign} {self.limit:.2f}"


@dataclass(slots=True)
class Figure:
    """One row: the same thing measured on both sides, in `unit`."""

    title: str
    unit: str
    target: Target | None
    commands: dict[str, str] = field(default_factory=dict)
    djasgi: list[float] = field(default_factory=list)
    native: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """The median of the ratios of each turn: its two sides ran one after another.

        None where there is nothing to divide by.
        """
        if not self.native or not all(self.native):
            return None
        return median(a / b for a, b in zip(self.djasgi, self.native, strict=True))

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        of_value = self.target.of == "value"
        figure = median(self.djasgi) if of_value else self.ratio
        if figure is None:
            return ""
        return "met" if self.target.met(figure) else "missed"

    def as_json(self) -> dict[str, object]:
        return {
            "title": self.title,
            "unit": self.unit,
            "djasgi": self.djasgi,
            "native": self.native,
            "ratio": self.ratio,
            "target": str(self.target) if self.target else None,
            "target_of": self.target.of if self.target else None,
            "verdict": self.verdict or None,
            "commands": self.commands,
        }


def interleave(
    figure: Figure,
    rounds: int,
    djasgi: Callable[[], float],
    native: Callable[[], float],
) -> Figure:
    """Measure both sides in turn, each first as often as the other.

    A machine that gets slower or faster meanwhile does so for both.
    """
    sides = [(figure.djasgi, djasgi), (figure.native, native)]
    for number in range(rounds):
        for values, measure in sides if number % 2 == 0 else reversed(sides):
            values.append(measure())
    return figure


def table(figures: list[Figure]) -> Iterator[str]:
    """The lines of the table, aligned."""
    rows = [("", "djasgi", "native", "ratio", "target", "")]
    rows += [_row(figure) for figure in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for title, *numbers, verdict in rows:
        columns = zip(numbers, widths[1:], strict=False)
        aligned = (f"{number:>{width}}" for number, width in columns)
        yield "  ".join((f"{title:<{widths[0]}}", *aligned, verdict)).rstrip()


def _row(figure: Figure) -> tuple[str, str, str, str, str, str]:
    target = ""
    if figure.target:
        unit = f" {figure.unit}" if figure.target.of == "value" else ""
        target = f"{figure.target}{unit}"
    return (
        figure.title,
        _quantity(median(figure.djasgi), figure.unit),
        _quantity(median(figure.native), figure.unit) if figure.native else "",
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        target,
        figure.verdict,
    )


def _quantity(value: float, unit: str) -> str:
    digits = {"s": 3, "MiB": 1, "times": 2, "µs": 2}.get(unit, 0)
    return f"{value:,.{digits}f} {unit}"
