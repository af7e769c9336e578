"""A value with its origin, and the layers that values come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from djasgi.configuration import Entry
from djasgi.frozen import Frozen
from djasgi.options import OPTIONS

DEFAULT = "default"


class Value(Frozen):
    """A value, where it came from, and what it was taken instead of."""

    value: Any
    origin: str = DEFAULT
    instead_of: tuple[tuple[Any, str], ...] = ()
    secret: bool = False

    @property
    def asked(self) -> bool:
        """Whether somebody gave this value, rather than nobody."""
        return self.origin != DEFAULT


class Layers:
    """The sources of option values, the strongest first."""

    def __init__(self, layers: Sequence[Mapping[str, Entry]]) -> None:
        self.layers = layers

    def entries(self, name: str) -> Iterator[Entry]:
        return (layer[name] for layer in self.layers if name in layer)

    def rank(self, name: str) -> int | None:
        """The index of the strongest layer that has `name`."""
        for index, layer in enumerate(self.layers):
            if name in layer:
                return index
        return None

    def value(self, name: str) -> Value:
        first, *others = [*self.entries(name)] or [
            Entry(OPTIONS[name].default, DEFAULT)
        ]
        return Value(
            first.value, first.origin, tuple((e.value, e.origin) for e in others)
        )
