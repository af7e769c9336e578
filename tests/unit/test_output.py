"""What people see: masking, escaping, columns."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from djasgi.output import MASK, masked, printable, rows, style


@pytest.mark.parametrize(
    "name",
    [
        "SECRET_KEY",
        "API_TOKEN",
        "DB_PASSWORD",
        "SENTRY_DSN",
        "AWS_ACCESS_KEY_ID",
        "x-auth",
    ],
)
def test_names_that_speak_of_secrets_hide_the_value(name: str) -> None:
    assert masked(name, "hunter2") == MASK


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("postgres://shop:hunter2@db/shop", f"postgres://{MASK}@db/shop"),
        ("redis://:hunter2@cache:6379", f"redis://{MASK}@cache:6379"),
        ("a https://u:hunter2@h/ b", f"a https://{MASK}@h/ b"),
        ("https://example.org/", "https://example.org/"),
        ("postgres://u:p@ss@db/x", f"postgres://{MASK}@db/x"),
    ],
)
def test_credentials_in_an_address_are_hidden(value: str, shown: str) -> None:
    assert masked("ADDRESS", value) == shown


@given(st.text())
def test_nothing_printed_can_steer_a_terminal(text: str) -> None:
    assert printable(text).isprintable()


def test_labels_values_and_origins_are_aligned() -> None:
    lines = rows(
        [("root", "/srv", "manage.py"), ("application", "a:b", "")], color=False
    )

    assert lines == ["  root          /srv  manage.py", "  application   a:b"]


def test_an_origin_that_does_not_fit_goes_below(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")

    lines = rows([("root", "/srv/" + "x" * 40, "manage.py")], color=False)

    assert lines[1] == " " * 16 + "manage.py"


def test_colours_are_left_out_when_not_wanted() -> None:
    assert style("x", "1", color=False) == "x"
    assert style("x", "1", color=True) == "\x1b[1mx\x1b[0m"
