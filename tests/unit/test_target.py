"""Application import strings."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from djasgi.discovery import Target, parse_target
from djasgi.errors import DjasgiError, ExitCode, ProjectError, UsageError


@pytest.mark.parametrize(
    ("text", "module", "file", "attribute", "call"),
    [
        ("config.asgi", "config.asgi", None, None, False),
        ("asgi", "asgi", None, None, False),
        ("config.asgi:application", "config.asgi", None, "application", False),
        ("config.asgi:a.b", "config.asgi", None, "a.b", False),
        ("config.asgi:create()", "config.asgi", None, "create", True),
        ("config.asgi:make.app()", "config.asgi", None, "make.app", True),
        ("app.py", "", "app.py", None, False),
        ("./app.py", "", "app.py", None, False),
        ("sub/app.py", "", "sub/app.py", None, False),
        ("sub/app.py:application", "", "sub/app.py", "application", False),
        ("sub/app.py:create()", "", "sub/app.py", "create", True),
        ("odd-name 1:2.py:app", "", "odd-name 1:2.py", "app", False),
    ],
)
def test_accepted_forms(
    tmp_path: Path,
    text: str,
    module: str,
    file: str | None,
    attribute: str | None,
    call: bool,
) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("app.py", "sub/app.py", "odd-name 1:2.py"):
        (tmp_path / name).touch()

    target = parse_target(text, tmp_path)

    path = tmp_path / file if file else None
    assert target == Target(module, path, attribute, call)
    if path is None:
        assert str(target) == text


def test_absolute_file(tmp_path: Path) -> None:
    (tmp_path / "app.py").touch()

    target = parse_target(f"{tmp_path}/app.py:app", Path("/"))

    assert target == Target("", tmp_path / "app.py", "app", call=False)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", ":", ":application", "config.asgi:", "config.asgi:()", "()"),
        *("config asgi", "config-asgi", "config/asgi", ".asgi", "asgi.", "a..b"),
        *("config.asgi:a b", "config.asgi:1", "config.asgi:a.", "config.asgi:f(1)"),
        *("config.asgi:f()()", "config.asgi()", "a:b:c", "config.class", "asgi:def"),
        *("app.py:", "nul\0", "nul\0.py", "-x", "http://localhost:8000"),
    ],
)
def test_nonsense_is_answered_with_the_accepted_forms(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse_target(text, tmp_path)

    assert caught.value.exit_code is ExitCode.USAGE
    assert "module:attribute" in caught.value.hint
    assert "\0" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("sub/asig.py", "There is no file", "Did you mean"),
        ("sub/completely_else.py:app", "There is no file", "In that folder: asgi.py"),
        ("empty/app.py", "There is no file", "no Python file"),
        ("missing/app.py", "There is no file", "no Python file"),
        ("folder.py", "is a folder", "Name a file"),
        ("x" * 5000 + ".py", "There is no file", "no Python file"),
    ],
)
def test_file_that_does_not_exist(
    tmp_path: Path, text: str, message: str, hint: str
) -> None:
    for name in ("sub", "empty", "folder.py"):
        (tmp_path / name).mkdir()
    (tmp_path / "sub" / "asgi.py").touch()

    with pytest.raises(ProjectError, match=message) as caught:
        parse_target(text, tmp_path)

    assert caught.value.exit_code is ExitCode.PROJECT
    assert hint in caught.value.hint


def test_nearest_file_is_named_in_full(tmp_path: Path) -> None:
    (tmp_path / "asgi.py").touch()

    with pytest.raises(ProjectError) as caught:
        parse_target("agsi.py", tmp_path)

    assert caught.value.hint == f"Did you mean {tmp_path / 'asgi.py'}?"


ANY_CHARACTER = st.characters(categories=None, codec=None)
PIECES = st.lists(st.sampled_from([*":./()\0 a", ".py", "..", "app", "\ud800"]))


@given(st.text() | st.text(ANY_CHARACTER) | PIECES.map("".join))
@settings(deadline=None)  # it waits for the disk
def test_any_text_is_a_target_or_an_error_for_people(text: str) -> None:
    problem: DjasgiError | None = None
    target: Target | None = None
    with tempfile.TemporaryDirectory() as folder:
        try:
            target = parse_target(text, Path(folder))
        except DjasgiError as error:
            problem = error

    if target:
        assert str(target) == text
        assert os.sep not in target.module
        assert target.file is None  # there is none in that folder
    else:
        assert problem
        assert problem.hint
        assert all(line.isprintable() for line in str(problem).split("\n"))
