"""A frozen value with little to pay at import."""

from __future__ import annotations

from typing import Any, ClassVar, dataclass_transform


@dataclass_transform(frozen_default=True)
class Record:
    """Declared like a frozen dataclass, equal to records of its own type only.

    dataclasses compile the methods of each class from text, about half a millisecond
    each; the two dozen messages of the supervisor would be a noticeable part of the
    time to the first page.
    """

    __match_args__: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        cls.__match_args__ = tuple(cls.__annotations__)  # type: ignore[misc]  # computed

    def __init__(self, *values: Any, **named: Any) -> None:
        fields = dict(zip(self.__match_args__, values, strict=False)) | named
        missing = [
            name
            for name in self.__match_args__
            if name not in fields and not hasattr(type(self), name)
        ]
        wrong = len(values) + len(named) != len(fields) or set(fields) - set(
            self.__match_args__
        )
        if missing or wrong:
            raise TypeError(f"{type(self).__name__} takes {self.__match_args__}")
        self.__dict__.update(fields)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__match_args__)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        values = ", ".join(
            f"{name}={getattr(self, name)!r}" for name in self.__match_args__
        )
        return f"{type(self).__name__}({values})"
