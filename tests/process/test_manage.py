"""`djasgi manage`: manage.py under the settings and variables that are served."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command import djasgi
from tests.support.process import Process
from tests.support.server import Server, copy_project

CONFIGURATION = """\
[tool.djasgi.env.stage]
settings = "probe.staging"
env-file = "stage.env"
variables = { STAGE = "of the table", INHERITED = "no" }
"""

COMMAND = """\
import json, os, sys
from django.conf import settings
from django.core.management import BaseCommand

class Command(BaseCommand):
    requires_system_checks = []

    def create_parser(self, *args, **kwargs):
        parser = super().create_parser(*args, **kwargs)
        parser.parse_args = lambda args: type("A", (), {"_get_kwargs": lambda s: []})
        return parser

    def run_from_argv(self, argv):
        names = ("STAGE", "FROM_FILE", "INHERITED", "DJANGO_SETTINGS_MODULE")
        told = {name: os.environ.get(name) for name in names}
        told |= {"settings": settings.SETTINGS_MODULE, "arguments": argv[2:]}
        told |= {"left": [name for name in os.environ if name.startswith("WATCHDOG")]}
        told |= {"manage.py": "__main__" in sys.modules and argv[0]}
        print(json.dumps(told))
        sys.exit(int(os.environ.get("STATUS", 0)))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project `probe` with a command that tells what it sees."""
    root = copy_project("probe", tmp_path)
    (root / "pyproject.toml").write_text(CONFIGURATION)
    (root / "stage.env").write_text("FROM_FILE=of the file\n")
    commands = root / "tell" / "management" / "commands"
    commands.mkdir(parents=True)
    for folder in (root / "tell", root / "tell" / "management", commands):
        (folder / "__init__.py").touch()
    (commands / "tell.py").write_text(COMMAND)
    with (root / "probe" / "settings.py").open("a") as settings:
        settings.write('INSTALLED_APPS = ["tell"]\n')
    return root


def manage(root: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return djasgi("manage", *arguments, cwd=root, env=env)


def told(result: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert result.returncode == 0, result.stderr
    facts: dict[str, object] = json.loads(result.stdout)
    return facts


def test_settings_and_variables_of_the_environment(project: Path) -> None:
    facts = told(manage(project, "--env", "stage", "tell", INHERITED="yes"))
    assert facts["settings"] == facts["DJANGO_SETTINGS_MODULE"] == "probe.staging"
    assert facts["STAGE"] == "of the table"
    assert facts["FROM_FILE"] == "of the file"
    assert facts["INHERITED"] == "yes"
    assert facts["manage.py"] == str(project / "manage.py")


def test_what_systemd_tells_djasgi_is_not_for_the_command(project: Path) -> None:
    assert (
        told(manage(project, "tell", WATCHDOG_USEC="1", WATCHDOG_PID="1"))["left"] == []
    )


def test_the_settings_that_are_served(project: Path) -> None:
    with Server(project, "--env", "stage") as process:
        served = process.seen()["settings"]
        assert process.stop() == 0
    assert told(manage(project, "--env", "stage", "tell"))["settings"] == served


def test_without_an_environment_it_is_what_manage_py_would_use(project: Path) -> None:
    assert told(manage(project, "tell"))["settings"] == "probe.settings"
    inherited = manage(project, "tell", DJANGO_SETTINGS_MODULE="probe.staging")
    assert told(inherited)["settings"] == "probe.staging"


def test_options_of_djasgi_come_before_the_command(project: Path) -> None:
    """All that comes after it belongs to it, also what djasgi would understand."""
    arguments = ["--env", "other", "-v", "2", "--help", "--", "-o", "a b", "*", ""]
    facts = told(manage(project, "--settings", "probe.staging", "tell", *arguments))
    assert facts["settings"] == "probe.staging"
    assert facts["arguments"] == arguments


def test_an_unknown_variable_is_a_warning(project: Path) -> None:
    result = manage(project, "tell", DJASGI_ENVV="stage")
    assert told(result)["settings"] == "probe.settings"
    assert result.stderr == (
        "Warning: DJASGI_ENVV is not a variable that djasgi knows: "
        "did you mean DJASGI_ENV?\n"
    )


def test_settings_that_do_not_exist_are_refused_as_by_serve(project: Path) -> None:
    (project / "pyproject.toml").write_text(
        '[tool.djasgi.env.stage]\nsettings = "probe.stagign"\n'
    )

    def refusal(command: str, *arguments: str) -> tuple[int, str]:
        result = djasgi(command, "--env", "stage", *arguments, cwd=project)
        return result.returncode, result.stderr

    assert refusal("manage", "check") == refusal("serve", "--port", "0")
    code, says = refusal("manage", "check")
    assert code == 3
    assert says.splitlines() == [
        "Error: The settings module probe.stagign (pyproject.toml:2) does not exist.",
        "Did you mean probe.staging?",
    ]


@pytest.mark.parametrize("status", [0, 1, 3, 42])
def test_exit_code_is_passed_on(status: int, project: Path) -> None:
    assert manage(project, "tell", STATUS=str(status)).returncode == status


def test_commands_of_django(project: Path) -> None:
    check = manage(project, "--env", "stage", "check")
    assert check.returncode == 0, check.stderr
    assert "no issues" in check.stdout

    code = "from django.conf import settings as s; print(s.STAGE)"
    shell = manage(project, "--env", "stage", "shell", "-c", code)
    assert shell.returncode == 0, shell.stderr
    assert shell.stdout.splitlines()[-1] == "staging"

    unknown = manage(project, "no_such_command")
    assert unknown.returncode == 1
    assert "Unknown command: 'no_such_command'" in unknown.stderr


def test_it_becomes_manage_py(project: Path) -> None:
    """No process between it and the terminal: signals and exit are its own."""
    code = "import os; print('pid', os.getpid(), os.getppid())"
    command = [sys.executable, "-m", "djasgi", "manage", "shell", "-c", code]
    with Process(command, cwd=project) as process:
        assert process.wait() == 0
    process.wait_for(rf"^pid {process.pid} ")


def test_without_manage_py(project: Path) -> None:
    (project / "manage.py").unlink()
    facts = told(manage(project, "--settings", "probe.staging", "tell", "--flag"))
    assert facts["settings"] == "probe.staging"
    assert facts["arguments"] == ["--flag"]


def test_from_below_the_project(project: Path) -> None:
    facts = told(manage(project / "probe", "--env", "stage", "tell"))
    assert facts["settings"] == "probe.staging"


def test_project_that_is_named(project: Path, tmp_path: Path) -> None:
    facts = told(manage(tmp_path, "--project", project.name, "tell"))
    assert facts["settings"] == "probe.settings"


def test_manage_py_that_assigns_other_settings_is_refused(project: Path) -> None:
    path = project / "manage.py"
    path.write_text(
        path.read_text().replace(
            'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "probe.settings")',
            'os.environ["DJANGO_SETTINGS_MODULE"] = "probe.settings"',
        )
    )
    assert told(manage(project, "tell"))["settings"] == "probe.settings"

    refused = manage(project, "--env", "stage", "tell")

    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.splitlines() == [
        (
            "Error: manage.py:7 assigns DJANGO_SETTINGS_MODULE = probe.settings, "
            "not probe.staging (pyproject.toml:2)."
        ),
        "Use os.environ.setdefault() in manage.py.",
    ]


def test_command_is_needed(project: Path) -> None:
    result = manage(project)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) <= 3
