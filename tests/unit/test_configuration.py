"""`[tool.djasgi]`, djasgi.toml and the DJASGI_* variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from djasgi.configuration import Configuration, read_configuration, read_variables
from djasgi.errors import UsageError
from djasgi.kinds import Bind


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


FULL = """\
[project]
name = "shop"

[tool.djasgi]
app = "config.asgi:application"
workers = 2
bind = ["127.0.0.1:9000", "unix:run/web.sock"]   # two places

[tool.djasgi.env.production]
settings = "config.settings.production"
variables = { DJANGO_ENV = "production", DJANGO_CONFIGURATION = "Production" }
env-file = ".env.production"
workers = "auto"
"""


def test_values_keep_the_line_where_they_stand(tmp_path: Path) -> None:
    write(tmp_path / "pyproject.toml", FULL)

    found = read_configuration(tmp_path)

    assert found.path == tmp_path / "pyproject.toml"
    assert found.options["app"].origin == "pyproject.toml:5"
    assert found.options["workers"].value == 2
    production = found.environments["production"]
    assert production.options["settings"].origin == "pyproject.toml:10"
    assert production.options["workers"].value == "auto"
    assert production.variables["DJANGO_CONFIGURATION"].value == "Production"
    assert production.variables["DJANGO_CONFIGURATION"].origin == "pyproject.toml:11"


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    write(tmp_path / "pyproject.toml", FULL)

    found = read_configuration(tmp_path)

    assert found.options["bind"].value == (
        Bind("tcp", host="127.0.0.1", port=9000),
        Bind("unix", path=str(tmp_path / "run/web.sock")),
    )
    env_file = found.environments["production"].options["env_file"]
    assert env_file.value == tmp_path / ".env.production"


def test_an_application_given_as_a_file_is_relative_to_the_configuration(
    tmp_path: Path,
) -> None:
    write(tmp_path / "djasgi.toml", 'app = "web/app.py:application"')

    found = read_configuration(tmp_path)

    assert found.options["app"].value == f"{tmp_path}/web/app.py:application"


def test_djasgi_toml_has_the_same_keys_without_the_table(tmp_path: Path) -> None:
    write(tmp_path / "djasgi.toml", 'workers = 3\n[env.staging]\nlog-format = "json"\n')

    found = read_configuration(tmp_path)

    assert found.options["workers"].origin == "djasgi.toml:1"
    assert found.environments["staging"].options["log_format"].value == "json"
    assert found.environments["staging"].origin == "djasgi.toml:2"


def test_the_nearest_file_up_to_the_repository_root_is_read(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    write(tmp_path / "pyproject.toml", "[tool.djasgi]\nworkers = 4\n")
    write(tmp_path / "backend/pyproject.toml", '[project]\nname = "backend"\n')
    start = tmp_path / "backend/src"
    start.mkdir()

    assert read_configuration(start).path == tmp_path / "pyproject.toml"
    write(tmp_path / "backend/djasgi.toml", "workers = 5\n")
    assert read_configuration(start).path == tmp_path / "backend/djasgi.toml"


def test_nothing_above_the_repository_root_is_read(tmp_path: Path) -> None:
    write(tmp_path / "pyproject.toml", "[tool.djasgi]\nworkers = 4\n")
    (tmp_path / "repository/.git").mkdir(parents=True)

    assert read_configuration(tmp_path / "repository") == Configuration()


def test_without_a_repository_there_is_no_climbing(tmp_path: Path) -> None:
    write(tmp_path / "pyproject.toml", "[tool.djasgi]\nworkers = 4\n")
    (tmp_path / "project").mkdir()

    assert read_configuration(tmp_path / "project") == Configuration()


def test_without_a_repository_the_working_directory_above_counts(
    tmp_path: Path,
) -> None:
    write(tmp_path / "pyproject.toml", "[tool.djasgi]\nworkers = 4\n")
    start = tmp_path / "work/backend/src"
    start.mkdir(parents=True)
    path = write(tmp_path / "work/pyproject.toml", "[tool.djasgi]\nworkers = 5\n")

    assert read_configuration(start, tmp_path / "work").path == path
    assert read_configuration(start, tmp_path / "elsewhere") == Configuration()
    (start / ".git").mkdir()
    assert read_configuration(start, tmp_path / "work") == Configuration()


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "djasgi.toml").write_text("workers = 6\n", encoding="utf-8-sig")

    entry = read_configuration(tmp_path).options["workers"]

    assert (entry.value, entry.origin) == (6, "djasgi.toml:1")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("wokers = 4", "djasgi.toml:1: 'wokers' is not a key", "'workers'"),
        ("env.production.setings = 'x'", "djasgi.toml:1: 'setings'", "'settings'"),
        ("\n\nzzz = 1", "djasgi.toml:3: 'zzz' is not a key", "djasgi serve --help"),
        (
            "workers = 'many'",
            "djasgi.toml:1: workers: expected a whole number",
            "Worker",
        ),
        ("port = '80'", "djasgi.toml:1: port: expected a whole number", "TCP"),
        ("port = 1.5", "djasgi.toml:1: port: expected a whole number from 0", "TCP"),
        ("access-log = 'yes'", "access-log: expected true or false", "Log every"),
        ("env = 3", "djasgi.toml:1: env: expected tables", "README"),
        ("env.production = 3", "djasgi.toml:1: production: expected a table", "README"),
        (
            "\nmiddleware = ['timing']",
            "djasgi.toml:2: middleware: expected module:attribute",
            "ASGI middleware",
        ),
        (
            "[env.production]\nvariables = { 'A B' = 'x' }",
            "djasgi.toml:2: A B: expected the name of a variable",
            "README",
        ),
        (
            "[env.production]\nvariables = { A = 1 }",
            "djasgi.toml:2: A: expected a string",
            "README",
        ),
        (
            "[env.x]\nvariables = 3",
            "djasgi.toml:2: variables: expected a table",
            "README",
        ),
        ("workers = = 4", "is not valid TOML", "Mend the file"),
        ("env-file = ''", "djasgi.toml:1: env-file: expected a path", "NAME=value"),
        ("project = 3", "djasgi.toml:1: project: expected a path", "manage.py"),
    ],
)
def test_what_is_wrong_is_named_with_file_line_and_key(
    tmp_path: Path, text: str, message: str, hint: str
) -> None:
    write(tmp_path / "djasgi.toml", text)

    with pytest.raises(UsageError) as caught:
        read_configuration(tmp_path)

    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_file_that_is_nested_too_deep_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "djasgi.toml", f"x = {'[' * 20_000}{']' * 20_000}\n")

    with pytest.raises(UsageError, match="not valid TOML: it is nested too deep"):
        read_configuration(tmp_path)


def test_two_files_in_one_directory_are_an_error(tmp_path: Path) -> None:
    write(tmp_path / "pyproject.toml", "[tool.djasgi]\nworkers = 1\n")
    write(tmp_path / "djasgi.toml", "workers = 2\n")

    with pytest.raises(UsageError, match="Both"):
        read_configuration(tmp_path)


def test_a_pyproject_without_the_table_is_no_configuration(tmp_path: Path) -> None:
    write(tmp_path / "pyproject.toml", "[tool.other]\nworkers = 1\n")
    write(tmp_path / "djasgi.toml", "workers = 2\n")

    assert read_configuration(tmp_path).options["workers"].value == 2


def test_variables_are_read_by_the_name_of_the_option(tmp_path: Path) -> None:
    environ = {
        "DJASGI_WORKERS": "3",
        "DJASGI_ENV_FILE": "web.env",
        "DJASGI_ACCESS_LOG": "off",
        "DJASGI_BIND": "127.0.0.1:1,unix:a.sock",
        "DJASGI_PORT": "",
    }

    entries, warnings = read_variables(environ, tmp_path)

    assert warnings == []
    assert entries["workers"].value == 3
    assert entries["workers"].origin == "DJASGI_WORKERS"
    assert entries["env_file"].value == tmp_path / "web.env"
    assert entries["access_log"].value is False
    assert entries["bind"].value[1].path == str(tmp_path / "a.sock")
    assert "port" not in entries


def test_an_unknown_variable_is_a_warning_with_the_nearest_name(tmp_path: Path) -> None:
    _, warnings = read_variables({"DJASGI_WOKERS": "3"}, tmp_path)

    assert warnings == [
        "DJASGI_WOKERS is not a variable that djasgi knows: did you mean DJASGI_WORKERS?"
    ]


def test_an_invalid_variable_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="DJASGI_PORT: expected a whole number"):
        read_variables({"DJASGI_PORT": "eighty"}, tmp_path)
