"""From the name of an environment to settings and variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from djasgi.configuration import Entry
from djasgi.environments import (
    contradiction,
    is_production,
    looks_like_development,
    read_env_file,
    settings_by_convention,
)
from djasgi.errors import UsageError

PACKAGE = [f"config.settings.{n}" for n in ("dev", "local", "production", "test")]
FLAT = ["mysite.settings", "mysite.settings_prod"]


@pytest.mark.parametrize(
    ("name", "default", "siblings", "expected"),
    [
        ("production", "config.settings.local", PACKAGE, "config.settings.production"),
        ("Production", "config.settings.local", PACKAGE, "config.settings.production"),
        ("prod", "config.settings.local", PACKAGE, "config.settings.production"),
        ("live", "config.settings.local", PACKAGE, "config.settings.production"),
        ("local", "config.settings.local", PACKAGE, "config.settings.local"),
        ("ci", "config.settings.local", PACKAGE, "config.settings.test"),
        ("production", "mysite.settings", FLAT, "mysite.settings_prod"),
        ("live", "s.settings", ["s.live_settings", "s.settings"], "s.live_settings"),
        ("production", "mysite.settings", ["mysite.settings"], None),
        ("production", "mysite.settings", [], None),
        ("production", None, [], None),
    ],
)
def test_the_exact_name_comes_first_then_the_usual_synonyms(
    name: str, default: str, siblings: list[str], expected: str | None
) -> None:
    assert settings_by_convention(name, default, siblings) == expected


def test_an_ambiguous_synonym_is_refused_with_both() -> None:
    with pytest.raises(
        UsageError, match=r"config.settings.dev and config.settings.loc"
    ):
        settings_by_convention("development", "config.settings.production", PACKAGE)


def test_an_unknown_environment_is_refused_with_what_exists() -> None:
    with pytest.raises(UsageError) as caught:
        settings_by_convention("staging", "config.settings.local", PACKAGE)

    assert "There are: " + ", ".join(PACKAGE) in caught.value.message
    assert "--settings" in caught.value.hint


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("config.settings.local", True),
        ("config.settings.dev", True),
        ("mysite.settings_development", True),
        ("mysite.settings", False),
        ("locality.settings", False),
        ("config.settings.production", False),
    ],
)
def test_settings_that_look_like_development(settings: str, expected: bool) -> None:
    assert looks_like_development(settings) is expected


def test_production_has_synonyms() -> None:
    assert [is_production(n) for n in ("prod", "LIVE", "production", "dev", "eu")] == [
        True,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("environment", "planned", "inherited", "refused"),
    [
        (
            "production",
            {"DJANGO_SETTINGS_MODULE": "a"},
            {"DJANGO_SETTINGS_MODULE": "b"},
            True,
        ),
        (
            "production",
            {"DJANGO_SETTINGS_MODULE": "a"},
            {"DJANGO_SETTINGS_MODULE": "a"},
            False,
        ),
        (
            "production",
            {"DJANGO_SETTINGS_MODULE": "a"},
            {"DJANGO_SETTINGS_MODULE": ""},
            False,
        ),
        (
            "production",
            {"DJANGO_ENV": "production"},
            {"DJANGO_ENV": "development"},
            True,
        ),
        ("production", {}, {"DJANGO_ENV": "development"}, True),
        ("production", {}, {"DJANGO_ENV": "prod"}, False),
        ("production", {}, {"DJANGO_ENV": "blue"}, False),
        ("eu-production", {}, {"DJANGO_ENV": "production"}, False),
        ("production", {}, {"DJANGO_CONFIGURATION": "Development"}, True),
        (
            "production",
            {"DJANGO_CONFIGURATION": "Prod"},
            {"DJANGO_CONFIGURATION": "Dev"},
            True,
        ),
        ("production", {"OTHER": "a"}, {"OTHER": "b"}, False),
    ],
)
def test_contradictions(
    environment: str, planned: dict[str, str], inherited: dict[str, str], refused: bool
) -> None:
    says = {name: Entry(value, "pyproject.toml:3") for name, value in planned.items()}

    assert bool(contradiction(environment, says, inherited)) is refused


def test_a_contradiction_names_both_origins_and_the_remedy() -> None:
    says = {"DJANGO_SETTINGS_MODULE": Entry("config.settings.production", "--env")}
    error = contradiction("production", says, {"DJANGO_SETTINGS_MODULE": "x.y"})

    assert error is not None
    assert "DJANGO_SETTINGS_MODULE is x.y (inherited)" in error.message
    assert "config.settings.production (--env)" in error.message
    assert error.hint.startswith("Pass --settings, or unset it")


def test_env_files_are_taken_literally(tmp_path: Path) -> None:
    path = tmp_path / ".env.production"
    path.write_text(
        "# a comment\n"
        "SECRET_KEY='a$b${HOME}'\n"
        "export DATABASE_URL=postgres://u:p$w@h/db\n"
        "EMPTY=\n"
    )

    entries = read_env_file(path)

    assert entries["SECRET_KEY"] == Entry("a$b${HOME}", ".env.production:2")
    assert entries["DATABASE_URL"].value == "postgres://u:p$w@h/db"
    assert entries["EMPTY"].value == ""


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("DJANGO_ENV=production\n", encoding="utf-8-sig")

    assert read_env_file(path) == {"DJANGO_ENV": Entry("production", ".env:1")}


@pytest.mark.parametrize("content", [b"NAME\n= 3\n", b"\xff\xfe=1\n", b"A=1\nB='x\n"])
def test_a_broken_env_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.env"
    path.write_bytes(content)

    with pytest.raises(UsageError, match=r"x\.env"):
        read_env_file(path)


def test_a_missing_env_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_env_file(tmp_path / "missing.env")
