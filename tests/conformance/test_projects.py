"""Each project of tests/projects is served as it is, without a word of configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from djasgi.options import SERVERS
from tests.support.command import PROJECTS, djasgi
from tests.support.server import Server, copy_project

# The settings in force, and the application as djasgi names it.
WITHOUT_CONFIGURATION = {
    "asgi_application_setting": ("project.settings", "project.routing:application"),
    "asgi_package": ("shop.settings", "shop.asgi:application"),
    "backend_layout": ("shop.settings", "shop.asgi:application"),
    "configurations_like": ("server.settings", "server.asgi:application"),
    "core_asgi": ("config.settings.production", "core.asgi:application"),
    "decoy_settings": ("mysite.settings", "mysite.asgi:application"),
    "flat_settings": ("shop.settings", "shop.asgi:application"),
    "foreign_asgi": ("bookwyrm.settings", "Django's own"),
    "manage_works": ("shop.settings", "shop.asgi:application"),
    "no_asgi": ("shop.settings", "Django's own"),
    "probe": ("probe.settings", "probe.asgi:application"),
    "settings_package": ("config.settings.local", "config.asgi:application"),
    "src_backend_layout": ("shop.settings", "shop.asgi:application"),
    "src_layout": ("shop.settings", "shop.asgi:application"),
    "startproject": ("mysite.settings", "mysite.asgi:application"),
    "sys_path": ("config.settings", "config.asgi:application"),
}
NEED_A_WORD = {"several_projects", "single_file"}
SERVED_BY_OTHER_TESTS = {"echo", "leased", "live", "tutorial"}

each_server = pytest.mark.parametrize("server", SERVERS)


def test_no_project_is_left_out() -> None:
    there = {path.name for path in PROJECTS.iterdir()}
    assert there == {*WITHOUT_CONFIGURATION} | NEED_A_WORD | SERVED_BY_OTHER_TESTS


@each_server
@pytest.mark.parametrize("project", WITHOUT_CONFIGURATION)
def test_project_is_served_as_it_is(server: str, project: str, tmp_path: Path) -> None:
    settings, application = WITHOUT_CONFIGURATION[project]
    root = copy_project(project, tmp_path)
    files = all_files(root)
    # Each project with 0, 1 and 2 workers, and so each server.
    workers = ([*WITHOUT_CONFIGURATION].index(project) + SERVERS.index(server)) % 3

    with Server(root, "--server", server, "--workers", str(workers)) as process:
        seen = process.ready().seen()
        assert (seen["settings"], seen["path"]) == (settings, "/")
        assert process.matches(rf"application: {re.escape(application)} \(")
        assert process.matches(rf"settings: {settings} \(")
        assert process.matches(rf"server: {server} \d[\d.]*, ")
        assert len(process.workers()) == workers
        assert process.stop() == 0

    # manage.py of manage_works would leave one if it were executed.
    assert all_files(root) == files


def all_files(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if path.is_file()}


@each_server
def test_a_project_without_asgi_is_served_and_said_so(
    server: str, tmp_path: Path
) -> None:
    root = copy_project("no_asgi", tmp_path)
    with Server(root, "--server", server) as process:
        assert process.ready().seen()["settings"] == "shop.settings"
        assert process.matches(r"application: Django's own \(synthesised\)")
        assert process.stop() == 0


@each_server
def test_an_asgi_of_another_project_is_named_and_not_taken(
    server: str, tmp_path: Path
) -> None:
    root = copy_project("foreign_asgi", tmp_path)
    with Server(root, "--server", server) as process:
        assert process.ready().seen()["settings"] == "bookwyrm.settings"
        assert process.matches(r"celerywyrm/asgi\.py was not taken: .*celerywyrm")
        assert process.stop() == 0


@each_server
def test_several_projects_are_refused_with_the_list_and_the_remedy(
    server: str, tmp_path: Path
) -> None:
    root = copy_project("several_projects", tmp_path)

    result = djasgi("serve", "--server", server, cwd=root)

    assert result.returncode == 3
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) <= 3
    for word in ("blog", "shop", "--project"):
        assert word in result.stderr

    with Server(root, "--server", server, "--project", "blog") as process:
        assert process.seen()["settings"] == "blog.settings"
        assert process.stop() == 0


FORMS = {
    "module:attribute": ("probe.asgi:application", []),
    "module": ("probe.asgi", []),
    "package": ("made", []),
    "dotted attribute": ("made:Site.application", []),
    "module:factory()": ("probe.asgi:factory()", []),
    "--factory": ("probe.asgi:factory", ["--factory"]),
    "file": ("probe/asgi.py", []),
    "file:attribute": ("probe/asgi.py:application", []),
    "file:factory()": ("./probe/asgi.py:factory()", []),
    "another file": ("made/__init__.py:app", []),
}

MADE = """
from probe.asgi import factory

app = factory()


class Site:
    application = app
"""


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_app_is_served(form: str, tmp_path: Path) -> None:
    server = SERVERS[[*FORMS].index(form) % len(SERVERS)]
    root = copy_project("probe", tmp_path)
    (root / "made").mkdir()
    (root / "made" / "__init__.py").write_text(MADE)
    app, options = FORMS[form]

    with Server(root, app, *options, "--server", server, "--workers", "0") as process:
        seen = process.seen()
        assert seen["settings"] == "probe.settings"
        assert seen["made"] == ("factory" in app or "made" in app)
        assert process.stop() == 0


@each_server
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_single_file_needs_no_settings_module(
    server: str, workers: int, tmp_path: Path
) -> None:
    root = copy_project("single_file", tmp_path)
    arguments = ("--server", server, "--workers", str(workers))

    with Server(root, "app.py", *arguments) as process:
        assert process.seen()["settings"] is None
        assert process.stop() == 0


@each_server
def test_a_file_in_a_folder_is_served_from_anywhere(
    server: str, tmp_path: Path
) -> None:
    copy_project("single_file", tmp_path)
    with Server(
        tmp_path, "single_file/app.py:application", "--server", server
    ) as process:
        assert process.seen()["path"] == "/"
        assert process.stop() == 0
