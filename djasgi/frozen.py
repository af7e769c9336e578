"""A frozen value with little to pay at import."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self, dataclass_transform


@dataclass_transform(frozen_default=True)
class Frozen:
    """Declared like a frozen dataclass, equal to values of its own type only.

    dataclasses compile the methods of each class from text, about half a millisecond
    each: for those on the way to the first page it would be a tenth of that way.
    """

    __match_args__: ClassVar[tuple[str, ...]] = ()
    _defaults: ClassVar[Mapping[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        names = tuple(cls.__annotations__)
        cls.__match_args__ = names  # type: ignore[misc]  # computed
        # In the order of the fields, with a place for those that have no default.
        cls._defaults = {name: cls.__dict__.get(name, _MISSING) for name in names}

    def __init__(self, *values: Any, **named: Any) -> None:
        names = self.__match_args__
        fields = self.__dict__
        fields.update(self._defaults)
        fields.update(zip(names, values, strict=False))
        fields.update(named)
        if (
            len(fields) > len(names)
            or len(values) > len(names)
            or not named.keys().isdisjoint(names[: len(values)])
            or any(value is _MISSING for value in fields.values())
        ):
            raise TypeError(f"{type(self).__name__} takes {names}")

    def replaced(self, **changes: Any) -> Self:
        """A copy with other values in the fields of `changes`."""
        return type(self)(**vars(self) | changes)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({values})"


_MISSING: Any = object()
