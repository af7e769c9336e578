"""Values like those of frozen dataclasses."""

from __future__ import annotations

import pytest

from djasgi.frozen import Frozen


class Sent(Frozen):
    number: int
    late: bool = False


class Other(Frozen):
    number: int
    late: bool = False


class Empty(Frozen):
    pass


def test_records_are_equal_by_type_and_values() -> None:
    assert Sent(1) == Sent(number=1, late=False)
    assert Sent(1) != Sent(2)
    assert Sent(1) != Other(1)
    assert Empty() == Empty()
    assert len({Sent(1), Sent(1), Other(1)}) == 2


def test_records_are_frozen_and_show_their_values() -> None:
    with pytest.raises(AttributeError, match="frozen"):
        Sent(1).number = 2  # type: ignore[misc]  # that is the point

    assert repr(Sent(1)) == "Sent(number=1, late=False)"


def test_records_match_by_position() -> None:
    match Sent(3, late=True):
        case Sent(number, late):
            assert (number, late) == (3, True)


@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), ((1, True, 2), {}), ((1,), {"number": 1}), ((1,), {"lat": True})],
)
def test_a_record_takes_its_fields_once_each_and_nothing_else(
    values: tuple[int, ...], named: dict[str, int]
) -> None:
    with pytest.raises(TypeError, match="Sent takes"):
        Sent(*values, **named)  # type: ignore[arg-type]  # wrong on purpose


def test_a_copy_has_other_values_in_the_fields_that_are_named() -> None:
    assert Sent(1).replaced(late=True) == Sent(1, True)
    with pytest.raises(TypeError, match="Sent takes"):
        Sent(1).replaced(later=True)
