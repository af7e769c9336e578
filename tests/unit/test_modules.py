"""Finding modules and what they say, without importing them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from djasgi.discovery import Found, literal, module_file, settings_siblings
from djasgi.modules import Lookup, is_surely_missing


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("single", "one/single.py"),
        ("package", "one/package/__init__.py"),
        ("package.inner", "one/package/inner.py"),
        ("later", "two/later.py"),
        # the first import root wins, a package wins over a module beside it
        ("both", "one/both.py"),
        ("package.same", "one/package/same/__init__.py"),
        # a namespace package is the sum of its folders, and has no file
        ("space", None),
        ("space.first", "one/space/first.py"),
        ("space.second", "two/space/second.py"),
        # a package of the second root wins over a mere folder of the first
        ("real.inner", "two/real/inner.py"),
        # a module has nothing inside
        ("single.inner", None),
        ("missing", None),
        ("package.missing", None),
        # no names of modules
        ("", None),
        (".single", None),
        ("package..inner", None),
        ("../one/single", None),
        ("package/inner", None),
        ("nul\0", None),
    ],
)
def test_module_file(tmp_path: Path, name: str, expected: str | None) -> None:
    files = [
        *("one/single.py", "one/package/__init__.py", "one/package/inner.py"),
        *("one/both.py", "two/both.py", "two/later.py", "one/single/inner.py"),
        *("one/package/same.py", "one/package/same/__init__.py"),
        *("one/space/first.py", "two/space/second.py"),
        *("one/real/other.py", "two/real/__init__.py", "two/real/inner.py"),
    ]
    write(tmp_path, dict.fromkeys(files, ""))

    found = module_file(name, [tmp_path / "one", tmp_path / "two"])

    assert found == (tmp_path / expected if expected else None)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"s.py": 'X = "a"'}, ("a", "s.py:1")),
        ({"s.py": 'X: str = "a"'}, ("a", "s.py:1")),
        ({"s.py": 'X = "a"\nX = "b"'}, ("b", "s.py:2")),
        ({"s.py": 'if DEBUG:\n    X = "a"'}, ("a", "s.py:2")),
        ({"s/__init__.py": 'X = "a"'}, ("a", "s/__init__.py:1")),
        # imported from elsewhere
        ({"s.py": "from base import *", "base.py": 'X = "a"'}, ("a", "base.py:1")),
        ({"s.py": 'from base import *\nX = "b"', "base.py": 'X = "a"'}, ("b", "s.py:2")),
        ({"s.py": 'X = "b"\nfrom base import *', "base.py": 'X = "a"'}, ("a", "base.py:1")),
        ({"s.py": 'X = "b"\nfrom base import *', "base.py": ""}, ("b", "s.py:1")),
        ({"s.py": 'X = "b"\nfrom missing import *'}, ("b", "s.py:1")),
        ({"s/__init__.py": "from .base import *", "s/base.py": 'X = "a"'}, ("a", "s/base.py:1")),
        ({"s/__init__.py": "from . import *"}, None),
        ({"s.py": "from base import X", "base.py": 'X = "a"'}, ("a", "base.py:1")),
        ({"s.py": "from base import Y as X", "base.py": 'Y = "a"'}, ("a", "base.py:1")),
        ({"s.py": "from base import *", "base.py": "from s import *\nX = 'a'"}, ("a", "base.py:2")),
        ({"s.py": 'X = "a"\nfrom base import Y', "base.py": ""}, ("a", "s.py:1")),
        # not set, or not a literal
        ({"s.py": ""}, None),
        ({"other.py": 'X = "a"'}, None),
        ({"s.py": "X = ("}, None),
        ({"s.py": "X: str"}, None),
        ({"s.py": 'def f():\n    X = "a"'}, None),
        ({"s.py": 'X = "a" + b'}, None),
        ({"s.py": 'X = "a"\nX = f()'}, None),
        ({"s.py": 'X = "a"\nX += "b"'}, None),
        ({"s.py": 'X = "a"\nX, Y = f()'}, None),
        ({"s.py": 'X = "a"\nfrom missing import X'}, None),
        ({"s.py": 'X = "a"\ndef X(): ...'}, None),
        ({"s.py": 'if TESTING:\n    X = "a"'}, None),
        ({"s.py": "from .base import *", "base.py": 'X = "a"'}, None),
        ({"s.py": "from ...base import *"}, None),
        ({"s.py": 'X = "a"\nfrom ...base import X'}, None),
    ],
)  # fmt: skip
def test_literal(
    tmp_path: Path, files: Mapping[str, str], expected: tuple[str, str] | None
) -> None:
    root = write(tmp_path, files)

    found = literal("s", "X", [root])

    assert found == (Found(*expected) if expected else None)


def test_relative_imports_of_a_nested_module(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "config/settings/local.py": "from ..parts.base import *",
            "config/parts/base.py": 'X = "a"',
        },
    )

    assert literal("config.settings.local", "X", [root]) == Found(
        "a", "config/parts/base.py:1"
    )


def test_chain_of_imports_is_followed_to_a_limit(tmp_path: Path) -> None:
    """A project with endless imports is not read without end."""
    length = Lookup.MAX_MODULES
    files = {f"m{n}.py": f"from m{n + 1} import *" for n in range(length)}
    root = write(tmp_path, files | {f"m{length}.py": 'X = "a"'})

    assert literal("m1", "X", [root]) == Found("a", f"m{length}.py:1")
    assert literal("m0", "X", [root]) is None


@pytest.mark.parametrize(
    ("default", "files", "expected"),
    [
        # a settings package, the default a module in it
        (
            "config.settings.local",
            ["local", "production", "test", "__init__", "base", "common", "defaults"],
            ["local", "production", "test"],
        ),
        # sub-packages and what is no module's name are not modules
        ("config.settings.local", ["local", "prod/__init__", "not-a-name"], ["local"]),
        # the package itself
        ("config.settings", ["__init__", "base", "local", "prod"], ["local", "prod"]),
        ("config.settings", ["__init__", "environments/production"], []),
        # the default need not exist (a local.py that is not in the repository)
        ("config.settings.local", ["__init__", "production"], ["production"]),
    ],
)
def test_siblings_in_a_settings_package(
    tmp_path: Path, default: str, files: list[str], expected: list[str]
) -> None:
    root = write(tmp_path, {f"config/settings/{name}.py": "" for name in files})

    siblings = settings_siblings(default, [root])

    assert siblings == [f"config.settings.{name}" for name in expected]


@pytest.mark.parametrize(
    ("default", "files", "expected"),
    [
        ("shop.settings", ["settings", "urls", "asgi"], []),
        (
            "shop.settings",
            [
                "settings",
                "settings_production",
                "test_settings",
                "settings_base",
                "urls",
            ],
            ["settings_production", "test_settings"],
        ),
        (
            "shop.settings_local",
            ["settings", "settings_local", "settings_production"],
            ["settings_local", "settings_production"],
        ),
        ("shop.settings", ["settings", "resettings", "settings_", "_settings"], []),
    ],
)
def test_siblings_of_flat_settings(
    tmp_path: Path, default: str, files: list[str], expected: list[str]
) -> None:
    root = write(tmp_path, {f"shop/{name}.py": "" for name in files})

    assert settings_siblings(default, [root]) == [f"shop.{name}" for name in expected]


def test_siblings_of_settings_at_the_top_of_the_root(tmp_path: Path) -> None:
    root = write(tmp_path, dict.fromkeys(["settings.py", "settings_live.py"], ""))

    assert settings_siblings("settings", [root]) == ["settings_live"]
    assert settings_siblings("local", [root]) == []


def test_part_that_the_default_imports_is_no_environment(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "shop/settings.py": "try:\n    from .local_settings import *\n"
            "except ImportError:\n    pass\n",
            "shop/local_settings.py": "",
            "shop/production_settings.py": "from shop.settings import *",
        },
    )

    assert settings_siblings("shop.settings", [root]) == ["shop.production_settings"]


def test_what_a_settings_package_imports_is_an_environment(tmp_path: Path) -> None:
    """`from .local import *` in __init__.py chooses local; it makes it no part."""
    root = write(
        tmp_path,
        {
            "settings/__init__.py": "from .local import *",
            "settings/local.py": "",
            "settings/production.py": "",
        },
    )

    assert settings_siblings("settings", [root]) == [
        "settings.local",
        "settings.production",
    ]


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("config.settings.local", False),
        ("config.settings", False),
        ("config", False),
        ("config.settings.prodution", True),
        ("config.setings.local", True),
        ("config.urls.local", True),
        # not written in Python
        ("config.settings.compiled", False),
        # not of the project: installed, perhaps
        ("other.settings", False),
        ("space.settings", False),
        ("", False),
        (";x", False),
    ],
)
def test_modules_of_the_project_that_are_surely_missing(
    name: str, missing: bool, tmp_path: Path
) -> None:
    write(
        tmp_path,
        {
            "config/__init__.py": "",
            "config/urls.py": "",
            "config/settings/local.py": "",
            "config/settings/compiled.cpython-311-x86_64-linux-gnu.so": "",
            "space/other.py": "",
        },
    )

    assert is_surely_missing(name, [tmp_path]) is missing
