"""What manage.py says, read without running it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import example, given, settings, strategies as st

from djasgi.discovery import Found, Manage, read_manage

SET = 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")'
TEST = 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.test")'
OTHER = 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.other")'


def read(tmp_path: Path, text: str) -> Manage:
    path = tmp_path / "manage.py"
    path.write_text(dedent(text))
    return read_manage(path)


@pytest.mark.parametrize(
    ("text", "line", "assigned"),
    [
        # the ways to write it
        (SET, 1, False),
        (SET.removeprefix("os."), 1, False),
        ('os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"', 1, True),
        (f"name = {SET}", 1, False),
        (
            (
                'E = os.environ\nos.environ["DJANGO_SETTINGS_MODULE"] = '
                'os.environ.get("DJANGO_SETTINGS_MODULE", "mysite.settings")'
            ),
            2,
            False,
        ),
        (
            (
                'os.environ["DJANGO_SETTINGS_MODULE"] = '
                'os.getenv("DJANGO_SETTINGS_MODULE", "mysite.settings")'
            ),
            1,
            False,
        ),
        # the places
        (f"def main():\n    {SET}\n", 2, False),
        (f'if __name__ == "__main__":\n    {SET}\n', 2, False),
        (f'def main():\n  if __name__ == "__main__":\n    {SET}\n', 3, False),
        (f"try:\n    {SET}\nexcept ImportError:\n    {OTHER}\n", 2, False),
        (f"try:\n    pass\nfinally:\n    {SET}\n", 4, False),
        (f"with x:\n    {SET}\n", 2, False),
        (f"class Main:\n    def run(self):\n        {SET}\n", 3, False),
        # unconditional ones come first
        (f"if x:\n    {OTHER}\n{SET}\n", 3, False),
        (f"for x in y:\n    {OTHER}\n{SET}\n", 3, False),
        (f"while x:\n    {OTHER}\n{SET}\n", 3, False),
        (f"match x:\n    case 1:\n        {OTHER}\n{SET}\n", 4, False),
        (f'if __name__ == "__main__":\n    {SET}\nelse:\n    {OTHER}\n', 2, False),
        # of several defaults the first, of several assignments the last is in force
        (f"{SET}\n{OTHER}\n", 1, False),
        (
            (
                'os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.other"\n'
                'os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"\n'
            ),
            2,
            True,
        ),
        (
            f'{OTHER}\nos.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"\n',
            2,
            True,
        ),
        # branches that only tests reach
        (f'if "test" in sys.argv:\n    {TEST}\nelse:\n    {SET}\n', 4, False),
        (f'if "test" not in sys.argv:\n    {SET}\nelse:\n    {TEST}\n', 2, False),
        (f"if not TESTING:\n    {SET}\nelse:\n    {TEST}\n", 2, False),
        (f"if is_pytest():\n    {TEST}\nelif x:\n    {SET}\n", 4, False),
        (f'if sys.argv[1] == "test":\n    {TEST}\nelse:\n    {SET}\n', 4, False),
        (f"def run_tests():\n    {TEST}\ndef main():\n    {SET}\n", 4, False),
        # a word that only contains "test"
        (f"if latest:\n    {SET}\n", 2, False),
        # conditional ones that agree
        (f"if x:\n    {SET}\nelse:\n    {SET}\n", 2, False),
        # an assignment if it is not set is a default
        (
            (
                'if "DJANGO_SETTINGS_MODULE" not in os.environ:\n'
                '    os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"\n'
            ),
            2,
            False,
        ),
        (
            (
                'if not os.environ.get("DJANGO_SETTINGS_MODULE"):\n'
                '    os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"\n'
            ),
            2,
            False,
        ),
        (
            (
                'if os.getenv("DJANGO_SETTINGS_MODULE") is None:\n'
                '    os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"\n'
                f"if x:\n    {OTHER}\n"
            ),
            2,
            False,
        ),
        # an assignment under another condition is not certain to happen
        (
            'if x:\n    os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"',
            2,
            False,
        ),
    ],
)
def test_settings(tmp_path: Path, text: str, line: int, assigned: bool) -> None:
    manage = read(tmp_path, text)

    assert manage.settings == Found("mysite.settings", f"manage.py:{line}")
    assert manage.assigned is assigned


@pytest.mark.parametrize(
    "text",
    [
        "",
        "setup()",
        # not a literal
        'os.environ.setdefault("DJANGO_SETTINGS_MODULE", f"config.{x}")',
        'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config." + x)',
        'os.environ.setdefault("DJANGO_SETTINGS_MODULE", b"mysite.settings")',
        f'{SET}\nos.environ["DJANGO_SETTINGS_MODULE"] = choose()\n',
        f'{SET}\nos.environ["DJANGO_SETTINGS_MODULE"] = os.environ.get(choose())\n',
        # nothing that sets it
        'os.putenv("DJANGO_SETTINGS_MODULE", "mysite.settings")',
        'os.environ.get("DJANGO_SETTINGS_MODULE", "mysite.settings")',
        'options.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")',
        'options["DJANGO_SETTINGS_MODULE"] = "mysite.settings"',
        f'"""{SET}"""'.replace('"DJ', "'DJ").replace('",', "',"),
        # cannot be decided
        f"if x:\n    {SET}\nelse:\n    {OTHER}\n",
        f"try:\n    import x\nexcept ImportError:\n    {SET}\nelse:\n    if y:\n        {OTHER}",
        f"if testing:\n    {TEST}\n",
    ],
)
def test_settings_that_cannot_be_told(tmp_path: Path, text: str) -> None:
    manage = read(tmp_path, text)

    assert (manage.settings, manage.assigned) == (None, False)


def test_other_variables(tmp_path: Path) -> None:
    manage = read(
        tmp_path,
        """
        import os
        os.environ.setdefault("DJANGO_CONFIGURATION", "Development")
        if "DJANGO_CONFIGURATION" not in os.environ:
            os.environ["DJANGO_ENV"] = "conditional"
        os.environ["DJANGO_ENV"] = "development"
        os.environ.setdefault("SECRET", read_secret())
        """,
    )

    assert manage.variables == {
        "DJANGO_CONFIGURATION": Found("Development", "manage.py:3"),
        "DJANGO_ENV": Found("development", "manage.py:6"),
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sys.path.append(os.path.dirname(__file__))", "."),
        ("sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))", "."),
        ("sys.path.append(os.path.join(os.path.dirname(__file__), 'apps'))", "apps"),
        ("sys.path.append(join(dirname(realpath(__file__)), 'a', 'b'))", "a/b"),
        ("sys.path.append(os.path.dirname(__file__) + '/apps')", "apps"),
        ("sys.path.append(os.path.join(dirname(__file__), os.pardir))", ".."),
        (
            "sys.path.append(os.path.normpath(join(dirname(__file__), '..', 'x')))",
            "../x",
        ),
        ("sys.path.append(str(Path(__file__).parent / 'apps'))", "apps"),
        ("sys.path.append(str(Path(__file__).resolve().parent / 'a' / 'b'))", "a/b"),
        ("sys.path.append(str(Path(__file__).resolve(strict=True).parents[1]))", ".."),
        ("sys.path.insert(0, str(pathlib.Path(__file__).absolute().parent))", "."),
        ("sys.path.append(Path(__file__).parent.joinpath('apps').as_posix())", "apps"),
        ("sys.path.append(os.fspath(Path(os.path.dirname(__file__), 'x')))", "x"),
        ("B = Path(__file__).parent\nsys.path.append(str(B / 'apps'))", "apps"),
        ("B: Path = Path(__file__).parent\nsys.path.append(str(B))", "."),
        ("def main():\n  d = dirname(__file__)\n  sys.path.append(d)", "."),
        ("if x:\n    sys.path.append(dirname(__file__))", "."),
        ("sys.path.append('/usr/share/app')", "/usr/share/app"),
        # it depends on more than the file
        ("sys.path.append('apps')", None),
        ("sys.path.append(os.path.abspath('apps'))", None),
        ("sys.path.append(os.path.realpath('apps'))", None),
        ("sys.path.append(str(Path('apps').absolute()))", None),
        ("sys.path.append(os.getcwd())", None),
        ("sys.path.append(str(Path.cwd()))", None),
        ("sys.path.append(os.environ['HOME'])", None),
        ("sys.path.append(f'{x}/apps')", None),
        ("B = dirname(__file__)\nB = f()\nsys.path.append(B)", None),
        ("if testing:\n    sys.path.append(dirname(__file__))", None),
        ("path.append(dirname(__file__))", None),
        ("sys.path.insert(dirname(__file__))", None),
        # it would fail
        ("sys.path.append(Path(__file__).parents[99])", None),
        ("sys.path.append(__file__.parent)", None),
        ("sys.path.append(Path(__file__) + '/apps')", None),
        ("sys.path.append(dirname(__file__) / 'apps')", "apps"),
        ("sys.path.append(dirname(__file__).join(['x']))", None),
        ("sys.path.append(str(Path(__file__).stat()))", None),
        (r"sys.path.append(str(Path(__file__).parent / 'a\0b'))", None),
        (r"sys.path.append(os.path.realpath(dirname(__file__) + '/a\0b'))", None),
        # text that doubles on every line must not eat the memory
        ("a = dirname(__file__)\n" + "a = a + a\n" * 200 + "sys.path.append(a)", None),
    ],
)
def test_path_insertion(tmp_path: Path, text: str, expected: str | None) -> None:
    manage = read(tmp_path, text)

    folder = os.path.normpath(tmp_path / expected) if expected else None
    assert [str(path) for path in manage.paths] == ([folder] if folder else [])


def test_path_insertions_keep_their_order_and_come_once(tmp_path: Path) -> None:
    manage = read(
        tmp_path,
        """
        BASE = Path(__file__).parent
        sys.path.append(str(BASE / "b"))
        sys.path.append(str(BASE / "a"))
        sys.path.append(str(BASE / "b"))
        """,
    )

    assert manage.paths == (tmp_path / "b", tmp_path / "a")


@pytest.mark.parametrize(
    "content",
    [
        b"def main(:\n",
        b"\0",
        b"x = '\xff'",
        b"# coding: nonsense\n",
        b"# coding: utf-16\n",
        b"(" * 5000,
        b"x = " + b"-" * 100_000 + b"1",
        b"x = " + b"a." * 20_000 + b"b",
        b"if x: pass\n" + b"elif x: pass\n" * 5000,
        b"# " + b"x" * 1024 * 1024 + b"\n" + SET.encode(),
    ],
    ids=[
        "syntax",
        "null",
        "bytes",
        "codec",
        "utf-16",
        "((",
        "--",
        "a.a",
        "elif",
        "big",
    ],
)
def test_broken_file_says_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "manage.py"
    path.write_bytes(content)

    manage = read_manage(path)

    assert manage == Manage(path, None, assigned=False, variables={}, paths=())


def test_missing_file_folder_and_pipe_say_nothing(tmp_path: Path) -> None:
    """A pipe would block whoever opens it."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")

    for name in ("missing", "folder", "pipe"):
        assert read_manage(tmp_path / name).settings is None


def test_encoding_of_the_file_is_honoured(tmp_path: Path) -> None:
    path = tmp_path / "manage.py"
    path.write_bytes(f"# coding: latin-1\nname = 'é'\n{SET}\n".encode("latin-1"))

    assert read_manage(path).settings == Found("mysite.settings", "manage.py:3")


def test_warnings_of_the_file_are_left_to_its_import(tmp_path: Path) -> None:
    manage = read(tmp_path, "pattern = '\\d'\n" + SET)

    assert manage.settings == Found("mysite.settings", "manage.py:2")


FRAGMENTS = st.sampled_from(
    [
        *(SET, OTHER, "import os", "if x:", "else:", "def main():", "try:", "finally:"),
        *("    ", "\n", "sys.path.append(", "Path(__file__)", ".parent", "/ 'x'", ")"),
        *("B = ", "B", "dirname(", ".parents[0]", 'os.environ["X"] = ', "\0", "'''"),
    ]
)


@given(st.text() | st.binary() | st.lists(FRAGMENTS).map("".join))
@settings(deadline=None)  # it waits for the disk
@example("x = 1" + "+1" * 3000)
def test_no_text_makes_it_raise(text: str | bytes) -> None:
    data = text if isinstance(text, bytes) else text.encode(errors="replace")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "manage.py")
        path.write_bytes(data)

        manage = read_manage(path)

    assert manage.path == path
