"""The declarations of the options, and how their values are written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from djasgi.kinds import (
    Addresses,
    Bind,
    BindAddress,
    Bytes,
    Choice,
    Dotted,
    FilePath,
    Flag,
    Header,
    Integer,
    Kind,
    Mode,
    Repeated,
    RootPath,
    Seconds,
    Setting,
    Text,
    ThreadRange,
    Workers,
)
from djasgi.options import OPTIONS, SECTIONS, Options

KINDS: list[Kind] = [
    Text(),
    FilePath(),
    Dotted(),
    Choice("a", "b"),
    Flag(),
    Integer(0, 10),
    Bytes(1),
    Seconds(),
    Workers(),
    ThreadRange(),
    Mode(),
    RootPath(),
    Header(),
    Setting(),
    BindAddress(),
    Repeated(Integer(0)),
    Addresses(),
]


def test_every_option_has_a_section_a_help_sentence_and_a_valid_default() -> None:
    for name, spec in OPTIONS.items():
        assert spec.section in SECTIONS, name
        assert spec.help.endswith("."), name
        assert spec.kind.metavar, name
        assert spec.show(spec.default), name


def test_the_defaults_are_those_of_the_declarations() -> None:
    options = Options()

    assert vars(options) == {name: spec.default for name, spec in OPTIONS.items()}


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Flag(), "on", True),
        (Flag(), "0", False),
        (Integer(0, 65_535), " 8000 ", 8000),
        (Seconds(), "2.5", 2.5),
        (Workers(), "AUTO", "auto"),
        (Workers(), "0", 0),
        (ThreadRange(), "4", (4, 4)),
        (ThreadRange(), " 1:16 ", (1, 16)),
        (ThreadRange(), "0:8", (0, 8)),
        (ThreadRange(), "0", (0, 0)),
        (Mode(), "0660", 0o660),
        (Mode(), "0o600", 0o600),
        (RootPath(), "/", ""),
        (RootPath(), "/app/", "/app"),
        (Header(), "X-Frame-Options:DENY", ("X-Frame-Options", "DENY")),
        (Setting(), "h11-max=16=1", ("h11_max", "16=1")),
        (BindAddress(), "127.0.0.1:80", Bind("tcp", host="127.0.0.1", port=80)),
        (BindAddress(), "[::1]:80", Bind("tcp", host="::1", port=80)),
        (BindAddress(), ":80", Bind("tcp", host="::", port=80)),
        (BindAddress(), "unix:/run/x", Bind("unix", path="/run/x")),
        (BindAddress(), "fd://3", Bind("fd", fd=3)),
        (Addresses(), "10.0.0.0/8, ::1,*", ("10.0.0.0/8", "::1", "*")),
        (
            Repeated(BindAddress()),
            ":1,:2",
            (Bind("tcp", host="::", port=1), Bind("tcp", host="::", port=2)),
        ),
    ],
)
def test_text_becomes_a_value(kind: Kind, text: str, value: object) -> None:
    assert kind.parse(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Flag(), "maybe"),
        (Integer(0, 65_535), "65536"),
        (Integer(0, 65_535), "-1"),
        (Integer(0), "1e3"),
        (Integer(0), "9" * 5000),
        (Seconds(), "nan"),
        (Seconds(), "inf"),
        (Seconds(), "-1"),
        (Workers(), "many"),
        (ThreadRange(), "4:2"),
        (ThreadRange(), "-1"),
        (ThreadRange(), "1:"),
        (ThreadRange(), "1:1001"),
        (ThreadRange(), "auto"),
        (ThreadRange(), "1:2:3"),
        (Mode(), "999"),
        (Mode(), "1777"),
        (RootPath(), "app"),
        (RootPath(), "/a?b"),
        (RootPath(), "/a\nb"),
        (Header(), "no colon"),
        (Header(), "X: a\r\nSet-Cookie: b"),
        (Header(), "Content-Length: 1"),
        (Setting(), "=1"),
        (BindAddress(), "host"),
        (BindAddress(), "host:99999"),
        (BindAddress(), "::1:80"),
        (BindAddress(), "unix:"),
        (Dotted(), "a-b"),
        (Dotted(), "a..b"),
        (Addresses(), "nowhere.example"),
        (Choice("text", "json"), "xml"),
    ],
)
def test_what_is_no_value_is_refused_with_what_was_expected(
    kind: Kind, text: str
) -> None:
    with pytest.raises(ValueError, match=r"expected|belongs"):
        kind.parse(text)


@given(kind=st.sampled_from(KINDS), text=st.text())
def test_any_text_is_a_value_or_a_value_error(kind: Kind, text: str) -> None:
    try:
        value = kind.parse(text)
    except ValueError:
        return
    assert isinstance(kind.show(value), str)


@given(
    kind=st.sampled_from(KINDS),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ),
)
def test_any_toml_value_is_accepted_or_a_value_error(kind: Kind, value: Any) -> None:
    try:
        kind.accept(value)
    except ValueError:
        return


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Flag(), "yes"), (Integer(0), True), (Seconds(), "x"), (Text(), 3)],
)
def test_toml_types_are_not_guessed(kind: Kind, value: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        kind.accept(value)


@given(st.sampled_from([name for name in OPTIONS if OPTIONS[name].default is not None]))
def test_a_default_reads_back_as_itself(name: str) -> None:
    spec = OPTIONS[name]
    if spec.default != ():
        assert spec.kind.parse(spec.show(spec.default)) == spec.default
