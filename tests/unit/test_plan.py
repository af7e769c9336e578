"""The launch plan: what beats what, and where each value comes from.

Each test is a sentence of the documentation on configuration and environments.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from djasgi.errors import ProjectError, UsageError
from djasgi.kinds import Bind
from djasgi.plan import LaunchPlan, resolve

MANAGE = """\
import os

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{settings}")
"""
ASGI = """\
import os
from django.core.asgi import get_asgi_application
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{settings}")
application = get_asgi_application()
"""


def project(
    root: Path, settings: str = "config.settings.local", asgi: str | None = None
) -> Path:
    """A project with a settings package of base, local and production."""
    files = {
        "manage.py": MANAGE.format(settings=settings),
        "config/__init__.py": "",
        "config/settings/__init__.py": "",
        "config/settings/base.py": "",
        "config/settings/local.py": "from config.settings.base import *\n",
        "config/settings/production.py": "from config.settings.base import *\n",
        "config/asgi.py": ASGI.format(settings=asgi or settings),
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def plan(
    root: Path,
    environ: Mapping[str, str] | None = None,
    command: str = "serve",
    **given: Any,
) -> LaunchPlan:
    return resolve(command, given, environ or {}, root)


def settings_of(found: LaunchPlan) -> tuple[str, str]:
    assert found.settings is not None
    return found.settings.value, found.settings.origin


# The settings module.


def test_settings_typed_beat_everything(tmp_path: Path) -> None:
    project(tmp_path)
    environ = {"DJANGO_SETTINGS_MODULE": "b", "DJASGI_SETTINGS": "c"}

    found = plan(tmp_path, environ, settings="a", env="production")

    assert settings_of(found) == ("a", "--settings")


def test_an_explicit_environment_beats_the_application_and_manage_py(
    tmp_path: Path,
) -> None:
    found = plan(project(tmp_path), env="production")

    assert settings_of(found) == ("config.settings.production", "--env")
    assert found.settings
    assert found.settings.instead_of == (("config.settings.local", "manage.py:4"),)


def test_the_environment_of_the_variable_is_explicit_too(tmp_path: Path) -> None:
    found = plan(project(tmp_path), {"DJASGI_ENV": "prod"})

    assert settings_of(found) == ("config.settings.production", "DJASGI_ENV")


def test_the_table_of_an_environment_beats_the_convention(tmp_path: Path) -> None:
    project(tmp_path)
    (tmp_path / "djasgi.toml").write_text(
        "[env.production]\nsettings = 'config.settings.base'\n"
    )

    found = plan(tmp_path, env="production")

    assert settings_of(found) == ("config.settings.base", "djasgi.toml:2")


def test_a_table_without_settings_leaves_them_to_the_convention(tmp_path: Path) -> None:
    project(tmp_path)
    (tmp_path / "djasgi.toml").write_text("[env.production]\nworkers = 3\n")

    found = plan(tmp_path, env="production")

    assert settings_of(found) == ("config.settings.production", "--env")
    assert found.options.workers == 3


def test_where_manage_py_names_none_the_convention_starts_from_the_base_table(
    tmp_path: Path,
) -> None:
    project(tmp_path)
    (tmp_path / "manage.py").write_text("import django\n")
    (tmp_path / "djasgi.toml").write_text("settings = 'config.settings.local'\n")

    assert settings_of(plan(tmp_path)) == ("config.settings.local", "djasgi.toml:1")
    found = plan(tmp_path, env="production")
    assert settings_of(found) == ("config.settings.production", "--env")
    with pytest.raises(UsageError, match="no settings for the environment 'staging'"):
        plan(tmp_path, env="staging")


def test_an_inherited_module_beats_the_base_table_the_application_and_manage_py(
    tmp_path: Path,
) -> None:
    project(tmp_path)
    (tmp_path / "djasgi.toml").write_text("settings = 'config.settings.base'\n")

    found = plan(tmp_path, {"DJANGO_SETTINGS_MODULE": "config.settings.production"})

    assert settings_of(found) == (
        "config.settings.production",
        "DJANGO_SETTINGS_MODULE",
    )


def test_the_base_table_beats_the_application(tmp_path: Path) -> None:
    project(tmp_path)
    (tmp_path / "djasgi.toml").write_text("settings = 'config.settings.base'\n")

    assert settings_of(plan(tmp_path)) == ("config.settings.base", "djasgi.toml:1")


def test_the_application_s_own_default_beats_that_of_manage_py(tmp_path: Path) -> None:
    project(tmp_path, asgi="config.settings.production")

    found = plan(tmp_path)

    assert settings_of(found) == ("config.settings.production", "config/asgi.py:3")
    assert found.settings
    assert found.settings.instead_of == (("config.settings.local", "manage.py:4"),)


def test_without_an_asgi_py_manage_py_says(tmp_path: Path) -> None:
    project(tmp_path)
    (tmp_path / "config/asgi.py").unlink()

    found = plan(tmp_path)

    assert settings_of(found) == ("config.settings.local", "manage.py:4")
    assert found.application.target is None


@pytest.mark.parametrize(
    "variables",
    [
        {"DJANGO_SETTINGS_MODULE": "config.settings.local"},
        {"DJANGO_ENV": "development"},
        {"DJANGO_CONFIGURATION": "Development"},
    ],
)
def test_an_environment_that_contradicts_what_is_inherited_is_refused(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match="inherited"):
        plan(project(tmp_path), variables, env="production")


def test_the_same_inherited_module_is_no_contradiction(tmp_path: Path) -> None:
    environ = {"DJANGO_SETTINGS_MODULE": "config.settings.production"}

    found = plan(project(tmp_path), environ, env="production")

    assert settings_of(found)[0] == "config.settings.production"


def test_an_unknown_environment_lists_the_settings_that_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config.settings.local, config.settings.pro"):
        plan(project(tmp_path), env="staging")


def test_a_single_settings_module_serves_every_environment(tmp_path: Path) -> None:
    (tmp_path / "manage.py").write_text(MANAGE.format(settings="mysite.settings"))
    (tmp_path / "mysite").mkdir()
    (tmp_path / "mysite/settings.py").write_text("")
    (tmp_path / "mysite/asgi.py").write_text(ASGI.format(settings="mysite.settings"))

    found = plan(tmp_path, env="production")

    assert settings_of(found) == ("mysite.settings", "mysite/asgi.py:3")


@pytest.mark.parametrize("name", ["prod", "live", "Production", "prodcution"])
@pytest.mark.parametrize("given", [{}, {"settings": "mysite.settings"}])
def test_a_name_that_only_nearly_is_that_of_a_table_is_refused(
    name: str, given: dict[str, Any], tmp_path: Path
) -> None:
    """Its variables and options would not count, and nothing would say so."""
    (tmp_path / "manage.py").write_text(MANAGE.format(settings="mysite.settings"))
    (tmp_path / "mysite").mkdir()
    (tmp_path / "mysite/settings.py").write_text("")
    (tmp_path / "djasgi.toml").write_text("[env.production]\nworkers = 2\n")

    with pytest.raises(UsageError) as caught:
        plan(tmp_path, env=name, **given)

    assert f"{name!r} has no table (--env), 'production' has (djasgi.toml:1)" in str(
        caught.value
    )
    assert caught.value.hint.startswith("Did you mean --env production?")
    assert plan(tmp_path, env="development").options.workers == 1


def test_settings_of_exactly_that_name_need_no_table(tmp_path: Path) -> None:
    project(tmp_path)
    (tmp_path / "config/settings/prod.py").write_text("")
    (tmp_path / "djasgi.toml").write_text("[env.production]\nworkers = 2\n")

    found = plan(tmp_path, env="prod")

    assert settings_of(found) == ("config.settings.prod", "--env")
    with pytest.raises(UsageError, match="'Production' has no table"):
        plan(tmp_path, env="Production")


@pytest.mark.parametrize("command", ["serve", "manage"])
@pytest.mark.parametrize("name", ["production", "prod", "live"])
def test_production_refuses_a_default_that_looks_like_development(
    command: str, name: str, tmp_path: Path
) -> None:
    """Neither are people served with it, nor is their database migrated with it."""
    project(tmp_path)
    (tmp_path / "config/settings/production.py").unlink()

    with pytest.raises(UsageError, match=r"config\.settings\.local"):
        resolve(command, {"env": name}, {}, tmp_path, application=command != "manage")


def test_production_accepts_development_settings_that_were_asked_for(
    tmp_path: Path,
) -> None:
    found = plan(project(tmp_path), env="production", settings="config.settings.local")

    assert settings_of(found)[0] == "config.settings.local"


# Variables.


def test_variables_come_from_the_table_the_env_file_and_what_is_inherited(
    tmp_path: Path,
) -> None:
    project(tmp_path)
    (tmp_path / ".env").write_text("A=file\nB=file\nC=file\n")
    (tmp_path / "djasgi.toml").write_text(
        "[env.production]\nenv-file = '.env'\n"
        "variables = { A = 'table', B = 'table', D = 'table' }\n"
    )

    found = plan(tmp_path, {"A": "inherited"}, env="production")

    values = {name: value.value for name, value in found.variables.items()}
    assert values == {
        "B": "file",
        "C": "file",
        "D": "table",
        "DJANGO_SETTINGS_MODULE": "config.settings.production",
    }
    assert found.variables["B"].secret
    assert found.variables["B"].origin == ".env:2"
    assert not found.variables["D"].secret


def test_an_env_file_is_read_only_when_asked_for(tmp_path: Path) -> None:
    project(tmp_path)
    (tmp_path / ".env").write_text("A=file\n")

    assert "A" not in plan(tmp_path).variables
    assert plan(tmp_path, env_file=Path(".env")).variables["A"].value == "file"


def test_an_env_file_may_name_the_settings(tmp_path: Path) -> None:
    project(tmp_path)
    (tmp_path / ".env").write_text("DJANGO_SETTINGS_MODULE=config.settings.base\n")

    found = plan(tmp_path, env_file=tmp_path / ".env")

    assert settings_of(found) == ("config.settings.base", ".env:1")


# Options.


def test_each_source_beats_the_next(tmp_path: Path) -> None:
    project(tmp_path)
    (tmp_path / "djasgi.toml").write_text(
        "workers = 2\n[env.production]\nworkers = 3\n"
    )
    environ = {"WEB_CONCURRENCY": "4", "DJASGI_WORKERS": "5"}

    found = plan(tmp_path, environ, env="production", workers=6).values["workers"]

    assert (found.value, found.origin) == (6, "--workers")
    assert found.instead_of == (
        (5, "DJASGI_WORKERS"),
        (4, "WEB_CONCURRENCY"),
        (3, "djasgi.toml:3"),
        (2, "djasgi.toml:1"),
    )


def test_a_default_has_the_origin_default(tmp_path: Path) -> None:
    found = plan(project(tmp_path)).values["workers"]

    assert (found.value, found.origin, found.asked) == (1, "default", False)


def test_paths_typed_are_relative_to_the_working_directory(tmp_path: Path) -> None:
    project(tmp_path / "backend")

    found = plan(tmp_path, uds=Path("web.sock"))

    assert found.path == tmp_path / "backend"
    assert found.binds == (Bind("unix", path=str(tmp_path / "web.sock")),)


def test_paths_configured_are_relative_to_the_file(tmp_path: Path) -> None:
    project(tmp_path / "backend")
    (tmp_path / "backend/djasgi.toml").write_text("uds = 'web.sock'\n")

    assert plan(tmp_path).binds == (
        Bind("unix", path=str(tmp_path / "backend/web.sock")),
    )


@pytest.mark.parametrize("folder", ["src", "backend", "src/backend"])
def test_the_file_beside_the_project_counts_without_a_repository(
    folder: str, tmp_path: Path
) -> None:
    project(tmp_path / folder)
    (tmp_path / "pyproject.toml").write_text(
        '[tool.djasgi.env.production]\nport = 9000\nserver = "daphne"\n'
    )

    found = plan(tmp_path, env="production")

    assert found.path == tmp_path / folder
    assert found.values["server"].origin == "pyproject.toml:3"
    assert found.binds == (Bind("tcp", host="127.0.0.1", port=9000),)


def test_the_file_that_names_the_project_counts(tmp_path: Path) -> None:
    project(tmp_path / "shop")
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy/djasgi.toml").write_text('project = "../shop"\nport = 9000\n')

    found = plan(tmp_path / "deploy")

    assert found.path == tmp_path / "shop"
    assert found.values["port"].origin == "djasgi.toml:2"


def test_a_file_that_names_a_project_with_its_own_is_refused(tmp_path: Path) -> None:
    project(tmp_path / "shop")
    (tmp_path / "djasgi.toml").write_text('project = "shop"\nport = 9000\n')
    (tmp_path / "shop/djasgi.toml").write_text("port = 9001\n")

    with pytest.raises(UsageError, match=r"djasgi.toml:1 leads to a project that .*"):
        plan(tmp_path)
    assert plan(tmp_path, project=Path("shop")).options.port == 9001


def test_an_invalid_platform_variable_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^PORT: expected a whole number"):
        plan(project(tmp_path), {"PORT": "http"})


def test_unknown_variables_of_ours_are_warnings(tmp_path: Path) -> None:
    found = plan(project(tmp_path), {"DJASGI_PROT": "1"})

    assert "did you mean DJASGI_PORT?" in found.warnings[0]


# Where to listen.


def test_loopback_by_default(tmp_path: Path) -> None:
    assert plan(project(tmp_path)).binds == (Bind("tcp", host="127.0.0.1", port=8000),)


def test_port_of_the_platform_means_all_interfaces(tmp_path: Path) -> None:
    found = plan(project(tmp_path), {"PORT": "5000"})

    assert found.binds == (Bind("tcp", host="::", port=5000),)
    assert found.values["port"].origin == "PORT"


def test_port_of_the_platform_leaves_a_host_that_a_source_gives(tmp_path: Path) -> None:
    project(tmp_path)
    (tmp_path / "djasgi.toml").write_text("host = '10.0.0.1'\n")

    assert plan(tmp_path, {"PORT": "5000"}).binds == (
        Bind("tcp", host="10.0.0.1", port=5000),
    )


def test_an_empty_port_is_unset(tmp_path: Path) -> None:
    assert plan(project(tmp_path), {"PORT": ""}).binds[0].port == 8000


@pytest.mark.parametrize(
    ("given", "bind"),
    [
        ({"bind": (Bind("tcp", host="::1", port=1),)}, Bind("tcp", host="::1", port=1)),
        ({"uds": Path("/run/x")}, Bind("unix", path="/run/x")),
        ({"fd": 7}, Bind("fd", fd=7)),
    ],
)
def test_port_of_the_platform_is_ignored_and_shown_beside_a_stronger_source(
    tmp_path: Path, given: dict[str, Any], bind: Bind
) -> None:
    found = plan(project(tmp_path), {"PORT": "5000"}, **given)

    assert found.binds == (bind,)
    (name,) = given
    assert ("5000", "PORT") in found.values[name].instead_of
    assert not found.values["port"].asked


def test_port_of_the_platform_beats_a_configured_bind(tmp_path: Path) -> None:
    project(tmp_path)
    (tmp_path / "djasgi.toml").write_text("bind = ['127.0.0.1:9']\n")

    found = plan(tmp_path, {"PORT": "5000"})

    assert found.binds == (Bind("tcp", host="::", port=5000),)
    assert ("127.0.0.1:9", "djasgi.toml:1") in found.values["port"].instead_of


def test_inherited_sockets_beat_the_platform_s_port(tmp_path: Path) -> None:
    environ = {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid()), "PORT": "5000"}

    found = plan(project(tmp_path), environ)

    assert found.binds == (Bind("fd", fd=3), Bind("fd", fd=4))
    assert found.values["fd"].origin == "LISTEN_FDS"


def test_inherited_sockets_of_another_process_are_not_ours(tmp_path: Path) -> None:
    environ = {"LISTEN_FDS": "2", "LISTEN_PID": "1"}

    assert plan(project(tmp_path), environ).binds[0].family == "tcp"


def test_inherited_sockets_are_ignored_and_shown_beside_what_was_typed(
    tmp_path: Path,
) -> None:
    environ = {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid())}

    found = plan(project(tmp_path), environ, port=9)
    assert found.binds == (Bind("tcp", host="127.0.0.1", port=9),)
    assert found.values["port"].instead_of == (("fd://3, fd://4", "LISTEN_FDS"),)

    found = plan(tmp_path, environ, fd=4)
    assert found.binds == (Bind("fd", fd=4),)


@pytest.mark.parametrize(
    "given",
    [
        {"fd": 3, "port": 80},
        {"fd": 3, "host": "::"},
        {"uds": Path("x"), "port": 80},
        {"bind": (Bind("fd", fd=3),), "uds": Path("x")},
        {"uds_mode": 0o600},
        {"proxy_headers": False, "forwarded_allow_ips": ("*",)},
    ],
)
def test_contradictory_options_are_refused(
    tmp_path: Path, given: dict[str, Any]
) -> None:
    with pytest.raises(UsageError, match=r"contradict|is for a unix socket"):
        plan(project(tmp_path), **given)


# The application.


def test_an_application_that_is_named_beats_what_is_found(tmp_path: Path) -> None:
    project(tmp_path)
    (tmp_path / "djasgi.toml").write_text("app = 'configured:app'\n")
    environ = {"DJASGI_APP": "variable:app"}

    def origin(found: LaunchPlan) -> tuple[str, str]:
        assert found.application.target
        return found.application.target.module, found.application.origin

    assert origin(plan(tmp_path, environ, app="typed:app")) == ("typed", "argument")
    assert origin(plan(tmp_path, environ)) == ("variable", "DJASGI_APP")
    assert origin(plan(tmp_path)) == ("configured", "djasgi.toml:1")


def test_asgi_application_of_the_settings_beats_an_asgi_py(tmp_path: Path) -> None:
    project(tmp_path)
    base = tmp_path / "config/settings/base.py"
    base.write_text("\nASGI_APPLICATION = 'config.routing.application'\n")

    found = plan(tmp_path).application

    assert found.target
    assert (found.target.module, found.target.attribute) == (
        "config.routing",
        "application",
    )
    assert found.origin == "config/settings/base.py:2"


def test_nothing_found_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"no manage\.py") as caught:
        plan(tmp_path)

    assert "--project DIR" in caught.value.hint
    assert caught.value.exit_code == 3


def test_a_project_without_manage_py_works_when_the_settings_are_given(
    tmp_path: Path,
) -> None:
    project(tmp_path)
    (tmp_path / "manage.py").unlink()

    found = plan(tmp_path, settings="config.settings.production")

    assert found.application.target
    assert found.application.target.module == "config.asgi"


def test_a_project_without_manage_py_works_when_the_application_is_given(
    tmp_path: Path,
) -> None:
    project(tmp_path)
    (tmp_path / "manage.py").unlink()

    found = plan(tmp_path, app="config.asgi:application")

    assert settings_of(found) == ("config.settings.local", "config/asgi.py:3")


@pytest.mark.parametrize(
    ("configured", "environ", "origin"),
    [
        ("settings = 'config.settings.production'\n", {}, "djasgi.toml:1"),
        (
            "[env.production]\nsettings = 'config.settings.production'\n",
            {"DJASGI_ENV": "production"},
            "djasgi.toml:2",
        ),
        (
            "",
            {"DJANGO_SETTINGS_MODULE": "config.settings.production"},
            "DJANGO_SETTINGS_MODULE",
        ),
    ],
)
def test_it_does_not_matter_who_gives_the_settings_of_a_project_without_manage_py(
    configured: str, environ: dict[str, str], origin: str, tmp_path: Path
) -> None:
    (project(tmp_path) / "manage.py").unlink()
    (tmp_path / "djasgi.toml").write_text(configured)

    found = plan(tmp_path, environ)

    assert settings_of(found) == ("config.settings.production", origin)
    assert str(found.application.target) == "config.asgi:application"


def test_the_table_of_an_environment_may_name_project_and_application(
    tmp_path: Path,
) -> None:
    project(tmp_path / "one")
    project(tmp_path / "two")
    (tmp_path / "djasgi.toml").write_text(
        "[env.production]\nproject = 'two'\napp = 'config.asgi:application'\nport = 9\n"
    )

    found = plan(tmp_path, env="production")

    assert (found.path, found.root.origin) == (tmp_path / "two", "djasgi.toml:2")
    assert found.application.origin == "djasgi.toml:3"
    assert found.options.port == 9


def test_a_project_without_any_settings_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "manage.py").write_text("import django\n")

    with pytest.raises(ProjectError, match="No settings module"):
        plan(tmp_path)


def test_manage_needs_no_application(tmp_path: Path) -> None:
    project(tmp_path)

    found = resolve("manage", {"env": "production"}, {}, tmp_path, application=False)

    assert settings_of(found)[0] == "config.settings.production"


def test_defaults_of_manage_py_are_set_where_no_asgi_py_does(tmp_path: Path) -> None:
    project(tmp_path)
    (tmp_path / "config/asgi.py").unlink()
    manage = (tmp_path / "manage.py").read_text()
    (tmp_path / "manage.py").write_text(
        manage + '    os.environ.setdefault("DJANGO_CONFIGURATION", "Dev")\n'
    )

    assert plan(tmp_path).variables["DJANGO_CONFIGURATION"].value == "Dev"
    environ = {"DJANGO_CONFIGURATION": "Prod"}
    assert "DJANGO_CONFIGURATION" not in plan(tmp_path, environ).variables
