from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from djasgi.kinds import Size, UrlPath


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("512", 512),
        ("1K", 1024),
        ("1k", 1024),
        ("512M", 512 * 2**20),
        ("512 MB", 512 * 2**20),
        ("2GiB", 2 * 2**30),
        ("2gib", 2 * 2**30),
        (" 1T ", 2**40),
        ("100B", 100),
    ],
)
def test_a_size_is_bytes_or_has_a_unit(text: str, size: int) -> None:
    assert Size().parse(text) == size
    assert Size().accept(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "M",
        "-1",
        "1.5G",
        "1P",
        "1 M M",
        "1Mi",
        "0x10",
        "1_000",
        "\N{ARABIC-INDIC DIGIT ONE}",
        "1\N{KELVIN SIGN}",
        "9" * 19,
        "9" * 30,
    ],
)
def test_what_is_no_size_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected"):
        Size().parse(text)


@pytest.mark.parametrize("value", [True, 1.5, None, [1], -1])
def test_in_a_file_a_size_is_a_number_or_text(value: object) -> None:
    with pytest.raises(ValueError, match=r"expected"):
        Size().accept(value)
    assert Size().accept(1024) == 1024


@given(size=st.integers(0, 2**60))
def test_a_size_that_is_shown_can_be_read_again(size: int) -> None:
    assert Size().parse(Size().show(size)) == size


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0"), (1023, "1023"), (1024, "1K"), (3 * 2**30, "3G"), (2**40, "1024G")],
)
def test_a_size_is_shown_with_the_largest_unit(size: int, text: str) -> None:
    assert Size().show(size) == text


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/a/b-c_d.e~f", "/%C3%B6", "/a:b@c,d;e=f"]
)
def test_a_path_of_a_url_is_taken_as_it_is(path: str) -> None:
    assert UrlPath().parse(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "healthz",
        "/a?b",
        "/a#b",
        "/a b",
        "/\N{LATIN SMALL LETTER O WITH DIAERESIS}",
        "/a\n",
        "/\0",
        "http://a/",
        "/[a]",
        '/"',
        "/\\",
    ],
)
def test_what_is_no_path_of_a_url_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"starts with a slash"):
        UrlPath().parse(path)
