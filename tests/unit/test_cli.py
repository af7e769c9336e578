"""The command line: help, version, and what is typed wrongly."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from djasgi import __version__
from djasgi.options import OPTIONS, SECTIONS
from tests.support.command import djasgi, environment


def test_version_is_quick_because_it_imports_little(tmp_path: Path) -> None:
    script = (
        "import sys, json\n"
        "from djasgi.cli import main\n"
        "try:\n"
        "    main(['--version'])\n"
        "except SystemExit:\n"
        "    print(json.dumps(sorted(sys.modules)))\n"
    )

    result = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )

    version, modules = result.stdout.splitlines()
    assert version == f"djasgi {__version__}"
    packages = {name.partition(".")[0] for name in json.loads(modules)}
    assert not packages & {
        "asyncio",
        "daphne",
        "django",
        "dotenv",
        "hypercorn",
        "rich",
        "twisted",
        "uvicorn",
        "uvloop",
    }


@pytest.mark.parametrize("arguments", [(), ("-h",), ("--help",)])
def test_the_help_page_lists_the_commands_in_80_columns(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    result = djasgi(*arguments, cwd=tmp_path)

    assert result.returncode == 0
    assert result.stderr == ""
    assert re.search(r"^  serve +Serve, with workers", result.stdout, re.MULTILINE)
    assert "djasgi serve --env production" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_the_commands_of_all_sections_are_aligned(tmp_path: Path) -> None:
    page = djasgi("-h", cwd=tmp_path).stdout
    lines = re.findall(r"^  (\w+ +)(?=\S)", page.partition("Run:")[2], re.MULTILINE)
    assert len({len(line) for line in lines[:4]}) == 1


@pytest.mark.parametrize("command", ["serve", "explain"])
def test_the_help_of_a_command_shows_every_option_in_its_section(
    tmp_path: Path, command: str
) -> None:
    page = djasgi(command, "-h", cwd=tmp_path).stdout

    for section in SECTIONS:
        assert f"\n{section}:\n" in page
    words = " ".join(page.split())
    for spec in OPTIONS.values():
        if not spec.argument:
            assert spec.flag in words
            assert spec.variable in words.replace(" ", "")
    assert "default: 95" in words
    assert max(map(len, page.splitlines())) <= 80


@pytest.mark.parametrize("command", ["serve", "explain", "manage", "servers"])
def test_every_command_has_help(tmp_path: Path, command: str) -> None:
    assert djasgi(command, "-h", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sevre",), "No such command 'sevre'"),
        (("serve", "--wrokers", "2"), "No such option"),
        (("serve", "--port", "http"), "expected a whole number from 0 to 65535"),
        (("serve", "--port", "70000"), "expected a whole number from 0 to 65535"),
        (("serve", "--server", "gunicorn"), "expected one of uvicorn, hypercorn"),
        (("serve", "a:b", "c:d"), "unexpected extra argument"),
        (("manage",), "Missing argument"),
    ],
)
def test_what_is_typed_wrongly_is_said_in_two_lines(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = djasgi(*arguments, cwd=tmp_path)

    assert result.returncode == 2
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith("Error: ")
    assert message in first
    assert second.startswith("Try: djasgi")


def test_the_servers_are_listed_with_every_option(tmp_path: Path) -> None:
    table = djasgi("servers", cwd=tmp_path)
    machine = json.loads(djasgi("servers", "--format", "json", cwd=tmp_path).stdout)

    assert table.returncode == 0
    for name, spec in OPTIONS.items():
        assert spec.flag in table.stdout
        assert set(machine["options"][spec.name]) == {
            "uvicorn",
            "hypercorn",
            "daphne",
        }, name
    assert machine["options"]["http2"]["uvicorn"].startswith("refused: ")
    assert max(map(len, table.stdout.splitlines())) <= 80


def test_the_servers_are_listed_without_colours_when_asked(tmp_path: Path) -> None:
    def table(**env: str) -> str:
        return djasgi("servers", cwd=tmp_path, env=env).stdout

    assert "\x1b" not in table()
    assert "\x1b[1m" in table(FORCE_COLOR="1")
    assert "\x1b" not in table(FORCE_COLOR="1", NO_COLOR="1")


def test_an_argument_without_help_is_in_the_usage_only(tmp_path: Path) -> None:
    assert djasgi("manage", "-h", cwd=tmp_path).stdout.count("COMMAND [ARGS]...") == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("djasgi s", ["plain,serve", "plain,servers", "plain,status", "plain,stop"]),
        ("djasgi serve --key", []),
        ("djasgi serve --keep", ["plain,--keep-alive"]),
        ("djasgi serve --server h", ["plain,hypercorn"]),
        ("djasgi serve --log-format ", ["plain,text", "plain,json"]),
        ("djasgi serve --uds /run/d", ["file,/run/d"]),
        ("djasgi manage --env-file .e", ["file,.e"]),
        ("djasgi serve --port 80", []),
    ],
)
def test_shell_completion(tmp_path: Path, words: str, expected: list[str]) -> None:
    count = words.count(" ")
    result = djasgi(
        cwd=tmp_path,
        env={
            "_DJASGI_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(count),
        },
    )

    assert [line for line in result.stdout.splitlines() if line] == expected
