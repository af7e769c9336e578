"""The ids are a contract: never reused, each with everything `--explain` needs."""

from __future__ import annotations

import pytest

from djasgi.checks.base import Level, all_checks, check, full_id, named
from djasgi.errors import UsageError
from djasgi.findings import explanation, listed
from djasgi.reference import checks_table

IDS = [
    *("E001", "E002", "W003", "E004", "E005", "E006", "E007", "W008", "W009", "W010"),
    *("E011", "E012", "E021", "E022", "W023", "E031", "E032", "I033", "W034", "W035"),
    *("E041", "E051", "W052", "W053", "W054", "W055", "W056", "E061", "W062", "W063"),
    *("W064", "W065", "W066", "E067", "E071", "W072", "E073", "W074", "E075", "E081"),
    *("E082", "E083", "W084", "W085", "W086", "E087", "E088"),
]
"""Add to it; never change or remove an id that was released."""


def test_the_ids_are_these() -> None:
    assert [each.short for each in all_checks().values()] == IDS


@pytest.mark.parametrize("name", IDS)
def test_explained_in_full(name: str) -> None:
    each = named(name)
    text = explanation(each)
    assert each.id in text
    assert each.title in text
    assert all(link.startswith("https://") for link in each.links)
    assert each.links
    assert each.example
    assert each.row
    assert len(each.title) <= 72
    assert f"| `{each.id}` | {each.level.word} |" in checks_table()


def test_listed_one_line_each() -> None:
    assert len(listed(all_checks().values()).splitlines()) == len(IDS)


def test_a_number_is_taken_once() -> None:
    all_checks()
    with pytest.raises(ValueError, match="taken"):
        check("W011", "Other", row=1, why="", links=(), example="")(lambda context: [])


@pytest.mark.parametrize(
    ("typed", "full"),
    [
        ("e011", "djasgi.E011"),
        ("djasgi.E011", "djasgi.E011"),
        ("security.W004", "security.W004"),
    ],
)
def test_ids_as_they_are_typed(typed: str, full: str) -> None:
    assert full_id(typed) == full


def test_a_typo_gets_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        named("E0111")
    assert "djasgi.E011" in caught.value.hint


def test_levels_are_djangos() -> None:
    from django.core import checks

    names = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    assert [int(Level[name]) for name in names] == [getattr(checks, n) for n in names]
