"""Finding the import root and the application in a project's files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from djasgi.discovery import (
    Application,
    Found,
    Rejected,
    Root,
    Target,
    defined_names,
    find_application,
    find_root,
    literal,
    settings_default,
)
from djasgi.errors import ExitCode, ProjectError

PROJECTS = Path(__file__).parent.parent / "projects"

Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Writes files (a trailing slash: a folder) and returns the folder they are in."""

    def write(*names: str, files: Mapping[str, str] | None = None) -> Path:
        for name, text in (dict.fromkeys(names, "") | dict(files or {})).items():
            path = tmp_path / name
            if name.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text or _default_text(path.name))
        return tmp_path

    return write


def _default_text(name: str) -> str:
    return {"manage.py": manage("mysite.settings"), "asgi.py": "application = 1"}.get(
        name, ""
    )


def manage(settings: str) -> str:
    return f'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "{settings}")\n'


def asgi(settings: str, name: str = "application") -> str:
    return f"{manage(settings)}{name} = object()\n"


def copied(name: str, tmp_path: Path) -> Path:
    """A project in a repository of its own."""
    path = tmp_path / name
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECTS / name, path, ignore=ignored)
    (path / ".git").mkdir()
    return path


def found_in(cwd: Path) -> tuple[Root, Found | None, Application]:
    root = find_root(cwd, None)
    assert root is not None
    assert root.manage is not None
    settings = root.manage.settings
    paths = root.manage.paths
    name = settings.value if settings else None
    return root, settings, find_application(root.path, paths, name)


FOUND = [
    # project, root, settings, application, its origin
    ("startproject", ".", "mysite.settings manage.py:9", "mysite.asgi", "mysite/asgi.py:13"),
    ("settings_package", ".", "config.settings.local manage.py:7", "config.asgi", "config/asgi.py:7"),
    ("src_layout", "src", "shop.settings manage.py:7", "shop.asgi", "shop/asgi.py:7"),
    ("backend_layout", "backend", "shop.settings manage.py:7", "shop.asgi", "shop/asgi.py:7"),
    ("src_backend_layout", "src/backend", "shop.settings manage.py:7", "shop.asgi", "shop/asgi.py:7"),
    ("asgi_package", ".", "shop.settings manage.py:7", "shop.asgi", "shop/asgi/__init__.py:9"),
    ("no_asgi", ".", "shop.settings manage.py:7", None, "synthesised"),
    ("decoy_settings", ".", "mysite.settings manage.py:7", "mysite.asgi", "mysite/asgi.py:7"),
    ("foreign_asgi", ".", "bookwyrm.settings manage.py:7", None, "synthesised"),
    ("manage_works", ".", "shop.settings manage.py:13", "shop.asgi", "shop/asgi.py:7"),
    ("asgi_application_setting", ".", "project.settings manage.py:7", None, "synthesised"),
    ("configurations_like", ".", "server.settings manage.py:7", "server.asgi", "server/asgi.py:7"),
    ("flat_settings", ".", "shop.settings manage.py:7", "shop.asgi", "shop/asgi.py:7"),
    ("core_asgi", ".", "config.settings.local manage.py:7", "core.asgi", "core/asgi.py:7"),
    ("sys_path", ".", "config.settings manage.py:8", "config.asgi", "config/asgi.py:12"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("project", "where", "settings", "module", "origin"), FOUND, ids=str
)
def test_found(
    project: str,
    where: str,
    settings: str,
    module: str | None,
    origin: str,
    tmp_path: Path,
) -> None:
    """Root, settings, application and origins of each layout."""
    path = copied(project, tmp_path)

    root, default, application = found_in(path)

    target = Target(module, None, "application", call=False) if module else None
    assert root.path == path / where
    assert root.origin == "manage.py"
    assert default == Found(*settings.split())
    assert (application.target, application.origin) == (target, origin)


ANSWER = """
import asyncio, importlib, json, sys
from asgiref.testing import ApplicationCommunicator
module, attribute = sys.argv[1:]
application = getattr(importlib.import_module(module), attribute)
if module == "django.core.asgi":
    application = application()
scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
async def ask():
    communicator = ApplicationCommunicator(application, scope)
    await communicator.send_input({"type": "http.request"})
    assert (await communicator.receive_output(30))["status"] == 200
    return (await communicator.receive_output(30))["body"]
print(asyncio.run(ask()).decode())
"""


@pytest.mark.parametrize("project", [row[0] for row in FOUND])
def test_what_is_found_answers(project: str, tmp_path: Path) -> None:
    """What was found imports, and serves with the settings that were found."""
    root, default, application = found_in(copied(project, tmp_path))
    target = application.target
    environ = {k: v for k, v in os.environ.items() if not k.startswith("DJANGO_")}
    settings = application.settings or default
    assert settings is not None
    environ["DJANGO_SETTINGS_MODULE"] = settings.value
    name = (
        [target.module, str(target.attribute)]
        if target
        else ["django.core.asgi", "get_asgi_application"]
    )

    answer = subprocess.check_output(
        [sys.executable, "-c", ANSWER, *name], cwd=root.path, env=environ, text=True
    )

    assert json.loads(answer)["settings"] == settings.value
    assert json.loads(answer)["path"] == "/"


def test_manage_py_is_not_executed(tmp_path: Path) -> None:
    path = copied("manage_works", tmp_path)

    found_in(path)

    assert not (path / "manage-was-executed").exists()


def test_foreign_asgi_is_named_with_the_reason(tmp_path: Path) -> None:
    _, _, application = found_in(copied("foreign_asgi", tmp_path))

    assert application.rejected == (
        Rejected("celerywyrm/asgi.py", "it belongs to celerywyrm.settings"),
    )


def test_decoy_in_an_application_is_named_with_the_reason(tmp_path: Path) -> None:
    _, _, application = found_in(copied("decoy_settings", tmp_path))

    assert application.rejected == (
        Rejected("documents/asgi.py", "it names no settings and is not in mysite"),
    )


def test_application_default_may_be_another_module_of_the_package(
    tmp_path: Path,
) -> None:
    _, _, application = found_in(copied("core_asgi", tmp_path))

    assert application.settings == Found("config.settings.production", "core/asgi.py:5")


def test_asgi_application_is_read_from_the_settings(tmp_path: Path) -> None:
    path = copied("asgi_application_setting", tmp_path)

    assert literal("project.settings", "ASGI_APPLICATION", [path]) == Found(
        "project.routing.application", "project/settings.py:4"
    )


def test_several_projects_are_listed_with_the_remedy(tmp_path: Path) -> None:
    path = copied("several_projects", tmp_path)

    with pytest.raises(ProjectError) as caught:
        find_root(path, None)

    assert "blog/manage.py, shop/manage.py" in caught.value.message
    assert "--project DIR, for example --project blog" in caught.value.hint
    assert caught.value.exit_code is ExitCode.PROJECT


def test_one_of_several_projects_is_chosen_by_its_folder(tmp_path: Path) -> None:
    path = copied("several_projects", tmp_path)

    inside = find_root(path / "shop" / "shop", None)
    named = find_root(path, Path("shop"))

    assert inside
    assert named
    assert inside.path == named.path == path / "shop"
    assert (inside.origin, named.origin) == ("manage.py", "--project")
    assert inside.manage == named.manage


def test_single_file_has_no_root(tmp_path: Path) -> None:
    assert find_root(copied("single_file", tmp_path), None) is None


@pytest.mark.parametrize(
    ("files", "cwd", "expected"),
    [
        # the working directory comes before everything else
        (["manage.py", "src/manage.py", ".git/"], ".", "."),
        # parents up to the repository's root, before any sub-folder
        (["manage.py", "a/b/", "a/src/manage.py", ".git/"], "a/b", "."),
        (["manage.py", "a/b/", ".hg/"], "a/b", "."),
        (["manage.py", "a/b/", ".svn/"], "a/b", "."),
        (["manage.py", "a/b/", ".git"], "a/b", "."),  # of a worktree: a file
        # not above the repository, and not at all without one
        (["manage.py", "a/b/", "a/.git/"], "a/b", None),
        (["manage.py", "a/b/"], "a/b", None),
        # sub-folders: of the working directory first, then of its parents
        (["a/src/manage.py", "b/manage.py", ".git/"], "a", "a/src"),
        (["docs/", "backend/manage.py", ".git/"], "docs", "backend"),
        (["docs/", "src/backend/manage.py", ".git/"], "docs", "src/backend"),
        (["anything/manage.py"], ".", "anything"),
        # no deeper
        (["src/other/manage.py"], ".", None),
        (["one/two/manage.py"], ".", None),
        # nobody's project
        (["venv/pyvenv.cfg", "venv/manage.py"], ".", None),
        (["node_modules/manage.py"], ".", None),
        (["site-packages/manage.py"], ".", None),
        ([".hidden/manage.py"], ".", None),
        ([".git/manage.py"], ".", None),
        # a decoy beside the real one
        (["venv/pyvenv.cfg", "venv/manage.py", "site/manage.py"], ".", "site"),
        (["manage.py/", "src/manage.py"], ".", "src"),
    ],
)
def test_root(tree: Tree, files: list[str], cwd: str, expected: str | None) -> None:
    path = tree(*files)

    root = find_root(path / cwd, None)

    assert (root and root.path) == (path / expected if expected else None)


@pytest.mark.parametrize(
    "files",
    [
        ["one/manage.py", "two/manage.py"],
        ["backend/manage.py", "src/manage.py"],
        ["src/manage.py", "src/backend/manage.py"],
    ],
)
def test_several_are_refused(tree: Tree, files: list[str]) -> None:
    with pytest.raises(ProjectError, match=f"{files[0]}, {files[1]}"):
        find_root(tree(*files), None)


def test_listed_paths_are_those_to_type(tree: Tree) -> None:
    """Projects beside the working directory are listed relative to it."""
    path = tree("here/", "one/manage.py", "two/manage.py", ".git/")

    with pytest.raises(ProjectError) as caught:
        find_root(path / "here", None)

    assert "../one/manage.py, ../two/manage.py" in caught.value.message
    assert "--project ../one" in caught.value.hint


def test_manage_py_of_another_tool_is_not_a_project(tree: Tree) -> None:
    path = tree(
        files={"manage.py": "from flask_script import Manager\nManager(app).run()\n"}
    )

    assert find_root(path, None) is None


def test_manage_py_of_another_tool_hides_nothing(tree: Tree) -> None:
    path = tree("src/manage.py", files={"manage.py": "from flask import Flask\n"})

    root = find_root(path, None)

    assert root
    assert root.path == path / "src"


def test_links_out_of_the_tree_are_not_followed(tree: Tree) -> None:
    path = tree("outside/manage.py", "repository/.git/", "repository/linked/")
    (path / "repository" / "folder").symlink_to(path / "outside")
    (path / "repository" / "linked" / "manage.py").symlink_to(
        path / "outside" / "manage.py"
    )
    (path / "repository" / "loop").symlink_to("loop")

    assert find_root(path / "repository", None) is None


def test_links_inside_the_tree_are_the_same_project(tree: Tree) -> None:
    path = tree("releases/manage.py", ".git/")
    (path / "current").symlink_to("releases")

    root = find_root(path, None)

    assert root
    assert root.path == path / "releases"


def test_root_of_a_linked_manage_py_is_where_python_would_look(tree: Tree) -> None:
    path = tree("backend/manage.py", ".git/")
    (path / "manage.py").symlink_to("backend/manage.py")

    root = find_root(path, None)

    assert root
    assert root.path == (path / "backend").resolve()


def test_linked_working_directory_keeps_its_name(tree: Tree) -> None:
    """A deployment's `current` link must survive: it is where the next release is."""
    path = tree("releases/1/manage.py")
    (path / "current").symlink_to("releases/1")

    root = find_root(path / "current", None)

    assert root
    assert root.path == path / "current"


def test_repository_of_somebody_else_is_not_climbed(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tree("manage.py", "mine/", ".git/")
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    lstat = Path.lstat

    def of_somebody(marker: Path) -> os.stat_result:
        return os.stat_result([*lstat(marker)[:4], 4712, *lstat(marker)[5:10]])

    monkeypatch.setattr(Path, "lstat", of_somebody)

    assert find_root(path / "mine", None) is None


def test_explicit_folder_needs_no_manage_py(tree: Tree) -> None:
    path = tree("mine/", "manage.py")

    assert find_root(path, Path("mine")) == Root(path / "mine", "--project", None)


def test_explicit_folder_above_has_a_plain_name(tree: Tree) -> None:
    path = tree("mine/", "manage.py")

    root = find_root(path / "mine", Path(".."))

    assert root
    assert root.path == path.resolve()


@pytest.mark.parametrize(
    ("explicit", "message", "hint"),
    [
        ("bakend", "does not exist", "backend"),
        ("nowhere/at/all", "does not exist", "--project"),
        ("manage.py", "is a file", "--project"),
        ("nul\0", "cannot be read", "--project"),
    ],
)
def test_explicit_folder_that_is_none(
    tree: Tree, explicit: str, message: str, hint: str
) -> None:
    path = tree("manage.py", "backend/manage.py")

    with pytest.raises(ProjectError, match=message) as caught:
        find_root(path, Path(explicit))

    assert hint in caught.value.hint


def test_working_directory_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="does not exist"):
        find_root(tmp_path / "gone", None)


UNREADABLE = """
import sys
from pathlib import Path
from djasgi.discovery import find_root
from djasgi.errors import ProjectError
explicit = Path(sys.argv[2]) if sys.argv[2:] else None
try:
    print(find_root(Path(sys.argv[1]), explicit).path)
except ProjectError as error:
    print(error)
"""


def found_without_privileges(*arguments: Path) -> str:
    """What `find_root` answers; as root, without the right to read everything."""
    bounded = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    return subprocess.check_output(
        [
            *(bounded if os.geteuid() == 0 else []),
            *(sys.executable, "-c", UNREADABLE, *map(str, arguments)),
        ],
        text=True,
    )


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o100], ids=["none", "list", "enter"])
def test_unreadable_working_directory(tree: Tree, mode: int) -> None:
    path = tree("closed/manage.py") / "closed"
    path.chmod(mode)

    here = found_without_privileges(path)
    named = found_without_privileges(path.parent, path)
    path.chmod(0o700)

    assert f"{path} cannot be read: Permission denied." in here
    assert f"{path} cannot be read: Permission denied." in named
    assert "--project" in here


def test_unreadable_sub_folder_is_skipped(tree: Tree) -> None:
    path = tree("closed/manage.py", "open/manage.py")
    (path / "closed").chmod(0o000)

    found = found_without_privileges(path)
    (path / "closed").chmod(0o700)

    assert found.strip() == str(path / "open")


def test_unreadable_manage_py_is_named(tree: Tree) -> None:
    path = tree("manage.py")
    (path / "manage.py").chmod(0o000)

    assert f"{path}/manage.py cannot be read" in found_without_privileges(path)


def test_cost_does_not_grow_with_the_tree(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the folders that are named in the rules are listed."""
    path = tree("a/b/c/d/", "src/backend/x/y/manage.py", ".git/")
    listed: list[str] = []
    scandir = os.scandir

    def record(folder: Path) -> object:
        listed.append(os.path.relpath(folder, path))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", record)

    assert find_root(path, None) is None
    assert set(listed) == {"."}


@pytest.mark.parametrize(
    ("files", "module", "attribute"),
    [
        # names and ways to define them
        ({"mysite/asgi.py": asgi("mysite.settings")}, "mysite.asgi", "application"),
        ({"mysite/asgi.py": asgi("mysite.settings", "app")}, "mysite.asgi", "app"),
        ({"mysite/asgi.py": "app = application = 1"}, "mysite.asgi", "application"),
        ({"mysite/asgi.py": "application: object = 1"}, "mysite.asgi", "application"),
        ({"mysite/asgi.py": "async def application(s, r, d): ..."}, "mysite.asgi", "application"),
        ({"mysite/asgi.py": "class app: ..."}, "mysite.asgi", "app"),
        ({"mysite/asgi.py": "from .x import y as application"}, "mysite.asgi", "application"),
        ({"mysite/asgi.py": "try:\n    app = 1\nexcept X:\n    pass"}, "mysite.asgi", "app"),
        ({"mysite/asgi.py": "from .x import *"}, "mysite.asgi", None),
        # places: import root, first-level packages, namespace packages, packages
        ({"asgi.py": "application = 1"}, "asgi", "application"),
        ({"asgi/__init__.py": "application = 1"}, "asgi", "application"),
        ({"core/asgi.py": asgi("mysite.settings.prod")}, "core.asgi", "application"),
        ({"core/asgi/__init__.py": asgi("mysite.settings")}, "core.asgi", "application"),
        ({"extra/ws/asgi.py": asgi("mysite.settings")}, "ws.asgi", "application"),
        # a package wins over a module of the same name, as it does for the import
        ({"mysite/asgi.py": "app = 1", "mysite/asgi/__init__.py": "application = 1"}, "mysite.asgi", "application"),
        # several: the settings' package, then the top level, then the same settings
        ({"core/asgi.py": asgi("mysite.settings"), "mysite/asgi.py": "app = 1"}, "mysite.asgi", "app"),
        ({"core/asgi.py": asgi("mysite.settings"), "asgi.py": "app = 1"}, "asgi", "app"),
        ({"core/asgi.py": asgi("mysite.settings"), "chat/asgi.py": asgi("mysite.other")}, "core.asgi", "application"),
        # it does not parse: the import will say so
        ({"mysite/asgi.py": "application = ("}, "mysite.asgi", None),
    ],
)  # fmt: skip
def test_application(
    tree: Tree, files: Mapping[str, str], module: str, attribute: str | None
) -> None:
    path = tree("mysite/settings.py", files=files)

    application = find_application(path, [path / "extra"], "mysite.settings")

    assert application.target == Target(module, None, attribute, call=False)


@pytest.mark.parametrize(
    ("files", "reasons"),
    [
        ({}, []),
        ({"core/asgi.py": asgi("other.settings")}, ["core/asgi.py: it belongs to other.settings"]),
        ({"core/asgi.py": "application = 1"}, ["core/asgi.py: it names no settings and is not in mysite"]),
        ({"mysite/asgi.py": "server = 1"}, ["mysite/asgi.py: it defines neither application nor app"]),
        ({"mysite/asgi.py": "def main():\n    app = 1"}, ["mysite/asgi.py: it defines neither application nor app"]),
        ({"core/asgi.py": "app = ("}, ["core/asgi.py: it names no settings and is not in mysite"]),
        # nobody's own
        ({"venv/pyvenv.cfg": "", "venv/asgi.py": asgi("mysite.settings")}, []),
        ({"node_modules/asgi.py": asgi("mysite.settings")}, []),
        ({"not-a-name/asgi.py": asgi("mysite.settings")}, []),
        ({"a/b/asgi.py": asgi("mysite.settings")}, []),
    ],
)  # fmt: skip
def test_application_is_synthesised(
    tree: Tree, files: Mapping[str, str], reasons: list[str]
) -> None:
    path = tree("mysite/settings.py", files=files)

    application = find_application(path, [], "mysite.settings")

    assert (application.target, application.origin) == (None, "synthesised")
    assert [f"{r.path}: {r.reason}" for r in application.rejected] == reasons


def test_application_beside_nested_settings(tree: Tree) -> None:
    path = tree(files={"src/config/asgi.py": asgi("src.config.settings")})

    application = find_application(path, [], "src.config.settings")

    assert application.target == Target("src.config.asgi", None, "application", False)


def test_what_was_passed_over_is_named(tree: Tree) -> None:
    path = tree(
        files={
            "mysite/asgi.py": asgi("mysite.settings"),
            "core/asgi.py": asgi("mysite.settings"),
        }
    )

    application = find_application(path, [], "mysite.settings")

    assert application.rejected == (
        Rejected("core/asgi.py", "mysite.asgi is in the settings' package"),
    )


def test_several_applications_are_refused(tree: Tree) -> None:
    path = tree(
        files={"a/asgi.py": asgi("mysite.one"), "b/asgi.py": asgi("mysite.one")}
    )

    with pytest.raises(ProjectError, match=r"a/asgi.py, b/asgi.py") as caught:
        find_application(path, [], "mysite.settings")

    assert "djasgi serve a.asgi" in caught.value.hint


def test_without_settings_a_single_application_is_taken(tree: Tree) -> None:
    path = tree(files={"core/asgi.py": asgi("mysite.settings")})

    application = find_application(path, [], None)

    assert application == Application(
        Target("core.asgi", None, "application", call=False),
        "core/asgi.py:3",
        Found("mysite.settings", "core/asgi.py:2"),
    )


def test_application_outside_the_tree_is_not_taken(tree: Tree) -> None:
    path = tree("project/manage.py", files={"out/asgi.py": asgi("mysite.settings")})
    (path / "project" / "mysite").symlink_to(path / "out")

    assert find_application(path / "project", [], "mysite.settings").target is None


def test_file_seen_from_two_import_roots_is_one(tree: Tree) -> None:
    path = tree(files={"mysite/asgi.py": asgi("mysite.settings")})

    application = find_application(path, [path / "mysite"], "mysite.settings")

    assert application.target == Target("mysite.asgi", None, "application", False)
    assert application.rejected == ()


def test_settings_default_of_a_file(tree: Tree) -> None:
    path = tree(
        files={
            "a/asgi.py": asgi("mysite.settings"),
            "b/asgi.py": 'import os\nos.environ["DJANGO_SETTINGS_MODULE"] = "x"\n',
            "c/asgi.py": 'import os\nos.environ["DJANGO_SETTINGS_MODULE"] = f()\n',
        }
    )
    default = Found("mysite.settings", "a/asgi.py:2")

    assert settings_default(path / "a/asgi.py", path) == (default, False)
    assert settings_default(path / "b/asgi.py", path) == (
        Found("x", "b/asgi.py:2"),
        True,
    )
    assert settings_default(path / "c/asgi.py", path) == (None, False)
    assert settings_default(path / "none.py", path) == (None, False)


def test_defined_names_are_the_public_ones_of_the_top_level(tree: Tree) -> None:
    path = tree(
        files={
            "a.py": "import os.path, sys as system\n"
            "from x import *\nfrom x import y as z\n"
            "_hidden = 1\na, (b, *c) = 1, (2, 3)\n"
            "d: int\ne: int = 1\nobject.attribute = 1\n"
            "with x as f, k: g = 1\n"
            "for h in x: pass\n"
            "def i():\n    inner = 1\n"
            "class J:\n    member = 1\n"
        }
    )

    names = defined_names(path / "a.py")

    assert names == ["os", "system", "z", "a", "b", "c", "e", "f", "g", "h", "i", "J"]
    assert defined_names(path / "missing.py") == []


def test_names_of_files_cannot_forge_output(tree: Tree) -> None:
    path = tree("a\x1b[31m\n/manage.py", "b/manage.py")

    with pytest.raises(ProjectError) as caught:
        find_root(path, None)

    assert r"a\x1b[31m\n/manage.py, b/manage.py" in caught.value.message
