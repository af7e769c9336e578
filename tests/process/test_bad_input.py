"""What bad input gets: what is wrong, what to do next, an exit code, nothing else.

The same words and codes on every server. What ends before a server has a part in it is
run once.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import shutil
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from tests.support.command import DJASGI, djasgi, environment
from tests.support.process import TIMEOUT, until
from tests.support.refusal import Refusal, refused
from tests.support.server import Server, copy_project

USAGE, PROJECT, LISTEN = 2, 3, 4

on_all_servers = pytest.mark.parametrize("server", ["uvicorn", "hypercorn", "daphne"])

Project = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A copy of a project of tests/projects, with other `files` in it."""

    def make(
        files: Mapping[str, str] | None = None, name: str = "startproject"
    ) -> Path:
        root = copy_project(name, tmp_path)
        for path, text in (files or {}).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(textwrap.dedent(text).lstrip("\n"))
        return root

    return make


def without_privileges() -> tuple[str, ...]:
    """Root may read everything; the tests may run as root."""
    if os.geteuid() != 0:
        return ()
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


# --- what is found and what is imported ---

ASGI = "mysite/asgi.py"
SETTINGS = "mysite/settings.py"
URLS = "mysite/urls.py"
NOT_FOUND = "{root}, and among what is installed."
NOT_INSTALLED = f"Is it installed for {sys.executable}?"
TAKES_AN_APP = "ASGI middleware takes the application and returns another."

LOADING: dict[str, tuple[dict[str, str], str, int, list[str]]] = {
    "module missing": (
        {},
        "mysite.agsi",
        PROJECT,
        ["There is no module mysite.agsi.", "Did you mean mysite.asgi?"],
    ),
    "package missing": (
        {},
        "mysit.asgi:application",
        PROJECT,
        ["There is no module mysit.asgi.", "Did you mean mysite.asgi:application?"],
    ),
    "nothing like it": (
        {},
        "nothing.like.it",
        PROJECT,
        ["There is no module nothing.like.it.", f"It is looked for in {NOT_FOUND}"],
    ),
    "module in a file": (
        {},
        "mysite.asgi.application",
        PROJECT,
        [
            "There is no module mysite.asgi.application.",
            "mysite.asgi is a file. What is in it is named mysite.asgi:application",
        ],
    ),
    "attribute missing": (
        {},
        "mysite.asgi:aplication",
        PROJECT,
        [
            'mysite/asgi.py has no "aplication".',
            'It defines "application":  djasgi serve mysite.asgi:application',
        ],
    ),
    "attribute of an attribute missing": (
        {},
        "mysite.asgi:application.inner",
        PROJECT,
        [
            'mysite/asgi.py has no "application.inner".',
            'It defines "application":  djasgi serve mysite.asgi:application',
        ],
    ),
    "a package instead of its module": (
        {},
        "mysite",
        PROJECT,
        [
            'mysite/__init__.py has neither "application" nor "app".',
            "It has a module 'asgi':  djasgi serve mysite.asgi",
        ],
    ),
    "a module instead of an attribute": (
        {},
        "mysite:asgi",
        PROJECT,
        [
            'mysite/__init__.py has no "asgi".',
            "It has a module 'asgi':  djasgi serve mysite.asgi",
        ],
    ),
    "no application in the module": (
        {},
        "mysite.settings",
        PROJECT,
        [
            'mysite/settings.py has neither "application" nor "app".',
            "Name the application in it:  djasgi serve mysite.settings:NAME",
        ],
    ),
    "factory missing": (
        {"app.py": "def make(): ...\n"},
        "app:mak()",
        PROJECT,
        ['app.py has no "mak".', "It defines \"make\":  djasgi serve 'app:make()'"],
    ),
    "factory in a file missing": (
        {"app.py": "def make(): ...\n"},
        "app.py:mak",
        PROJECT,
        ['app.py has no "mak".', 'It defines "make":  djasgi serve app.py:make'],
    ),
    "factory not callable": (
        {"app.py": "make = 3\n"},
        "app:make --factory",
        PROJECT,
        [
            "app:make is not a function, so it cannot be called for the application.",
            "Leave out --factory, or the parentheses.",
        ],
    ),
    "factory with arguments": (
        {"app.py": "def make(name): ...\n"},
        "app:make()",
        PROJECT,
        [
            (
                "app:make() cannot be called without arguments: make() missing 1 required "
                "positional argument: 'name'."
            ),
            (
                "A factory takes none. If it is the application itself, leave out "
                "--factory, or the parentheses."
            ),
        ],
    ),
    "factory raises": (
        {"app.py": "def make():\n    raise ValueError('no configuration')\n"},
        "app:make()",
        PROJECT,
        [
            "The project does not load: ValueError: no configuration",
            "Look at app.py:2.",
        ],
    ),
    "factory raises a TypeError inside": (
        {"app.py": "def make():\n    return len(3)\n"},
        "app:make()",
        PROJECT,
        [
            "The project does not load: TypeError: object of type 'int' has no len()",
            "Look at app.py:2.",
        ],
    ),
    "factory returns nothing": (
        {"app.py": "def make(): ...\n"},
        "app:make()",
        PROJECT,
        [
            "app:make() is None, not an ASGI application.",
            "Name the application itself, for example config.asgi:application",
        ],
    ),
    "factory is asynchronous": (
        {"app.py": "async def make(): ...\n"},
        "app:make()",
        PROJECT,
        [
            "app:make() is asynchronous: a factory is called before there is a loop.",
            "Make it a plain function, and await in the application's lifespan.",
        ],
    ),
    "application is a number": (
        {"app.py": "app = 3\n"},
        "app",
        PROJECT,
        [
            "app:app is a value of type int, not an ASGI application.",
            "Name the application itself, for example config.asgi:application",
        ],
    ),
    "application is WSGI, Django's": (
        {},
        "mysite.wsgi",
        PROJECT,
        [
            (
                "mysite.wsgi:application is a WSGI application: it cannot be called with "
                "scope, receive and send."
            ),
            "Use django.core.asgi.get_asgi_application(), or leave APP out.",
        ],
    ),
    "application is WSGI, another's": (
        {"app.py": "def app(environ, start_response): ...\n"},
        "app",
        PROJECT,
        [
            (
                "app:app is a WSGI application: it cannot be called with scope, receive "
                "and send."
            ),
            "Use django.core.asgi.get_asgi_application(), or leave APP out.",
        ],
    ),
    "import error": (
        {ASGI: "import os\n\nimport nothere\napplication = 1\n"},
        "",
        PROJECT,
        [
            "The project does not load: ModuleNotFoundError: No module named 'nothere'",
            f"Look at mysite/asgi.py:3. {NOT_INSTALLED}",
        ],
    ),
    "import error of the project's own": (
        {ASGI: "import mysite.setings\napplication = 1\n"},
        "",
        PROJECT,
        [
            (
                "The project does not load: ModuleNotFoundError: No module named "
                "'mysite.setings'"
            ),
            "Look at mysite/asgi.py:1. Did you mean mysite.settings?",
        ],
    ),
    "error in what is imported": (
        {
            ASGI: "import mysite.help\napplication = 1\n",
            "mysite/help.py": "def f():\n    1/0\n\nf()\n",
        },
        "",
        PROJECT,
        [
            "The project does not load: ZeroDivisionError: division by zero",
            "Look at mysite/help.py:2.",
        ],
    ),
    "syntax error": (
        {ASGI: "import os\nx = (\n"},
        "",
        PROJECT,
        [
            "The project does not load: SyntaxError: '(' was never closed",
            "Look at mysite/asgi.py:2.",
        ],
    ),
    "URLconf with a syntax error": (
        {URLS: "import os\nx = (\n"},
        "",
        PROJECT,
        [
            "The project does not load: SyntaxError: '(' was never closed",
            "Look at mysite/urls.py:2.",
        ],
    ),
    "URLconf that does not import": (
        {URLS: "from mysite import views\n"},
        "",
        PROJECT,
        [
            (
                "The project does not load: ImportError: cannot import name 'views' from "
                "'mysite' ({root}/mysite/__init__.py)"
            ),
            "Look at mysite/urls.py:1.",
        ],
    ),
    "URLconf missing": (
        {SETTINGS: "SECRET_KEY = 'x'\nROOT_URLCONF = 'mysite.urlz'\n"},
        "",
        PROJECT,
        [
            (
                "The project does not load: ModuleNotFoundError: No module named "
                "'mysite.urlz'"
            ),
            "Look at ROOT_URLCONF in mysite/settings.py. Did you mean mysite.urls?",
        ],
    ),
    "settings missing": (
        {},
        "--settings mysite.setings",
        PROJECT,
        [
            "The settings module mysite.setings (--settings) does not exist.",
            "Did you mean mysite.settings?",
        ],
    ),
    "settings raise": (
        {SETTINGS: "import os\nSECRET_KEY = os.environ['NO_SUCH_KEY']\n"},
        "",
        PROJECT,
        [
            "The project does not load: KeyError: 'NO_SUCH_KEY'",
            "Look at mysite/settings.py:2.",
        ],
    ),
    "settings with a syntax error": (
        {SETTINGS: "INSTALLED_APPS = [\n"},
        "",
        PROJECT,
        [
            "The project does not load: SyntaxError: '[' was never closed",
            "Look at mysite/settings.py:1.",
        ],
    ),
    "settings name an application that is not installed": (
        {SETTINGS: "SECRET_KEY = 'x'\nINSTALLED_APPS = ['corsheaders']\n"},
        "",
        PROJECT,
        [
            (
                "The project does not load: ModuleNotFoundError: No module named "
                "'corsheaders'"
            ),
            f"Look at INSTALLED_APPS in mysite/settings.py. {NOT_INSTALLED}",
        ],
    ),
    "settings name middleware that does not exist": (
        {SETTINGS: "SECRET_KEY = 'x'\nMIDDLEWARE = ['mysite.urls.Middleware']\n"},
        "",
        PROJECT,
        [
            (
                'The project does not load: ImportError: Module "mysite.urls" does not '
                'define a "Middleware" attribute/class'
            ),
            "Look at MIDDLEWARE in mysite/settings.py.",
        ],
    ),
    "settings exit": (
        {SETTINGS: "import sys\nprint('hello')\nsys.exit('no DATABASE_URL')\n"},
        "",
        PROJECT,
        [
            "The project does not load: it calls sys.exit('no DATABASE_URL')",
            "Look at mysite/settings.py:3.",
        ],
    ),
    "settings exit as if all was well": (
        {SETTINGS: "raise SystemExit(0)\n"},
        "--workers 0",
        PROJECT,
        [
            "The project does not load: it calls sys.exit(0)",
            "Look at mysite/settings.py:1.",
        ],
    ),
    "settings raise KeyboardInterrupt": (
        {SETTINGS: "raise KeyboardInterrupt\n"},
        "",
        PROJECT,
        [
            "The project does not load: KeyboardInterrupt",
            "Look at mysite/settings.py:1.",
        ],
    ),
    "settings raise KeyboardInterrupt, without workers": (
        {SETTINGS: "raise KeyboardInterrupt\n"},
        "--workers 0",
        PROJECT,
        [
            "The project does not load: KeyboardInterrupt",
            "Look at mysite/settings.py:1.",
        ],
    ),
    "settings cancel": (
        {SETTINGS: "import asyncio\nraise asyncio.CancelledError\n"},
        "",
        PROJECT,
        [
            "The project does not load: CancelledError",
            "Look at mysite/settings.py:2.",
        ],
    ),
    "settings kill the worker": (
        {SETTINGS: "import os\nos._exit(0)\n"},
        "--workers 1",
        PROJECT,
        [
            "Worker 1 ended with exit code 0 before it was ready.",
            "Run it in this process to see more: --workers 0",
        ],
    ),
    "settings say something that steers a terminal": (
        {SETTINGS: "raise ValueError('a\\x1b[2J\\r\\nError: \\u202eforged')\n"},
        "",
        PROJECT,
        [
            "The project does not load: ValueError: a\\x1b[2J",
            "Look at mysite/settings.py:1.",
        ],
    ),
    "ASGI_APPLICATION is another": (
        {SETTINGS: "SECRET_KEY = 'x'\nASGI_APPLICATION = 'mysite.' + 'routing.app'\n"},
        "",
        PROJECT,
        [
            (
                "ASGI_APPLICATION is mysite.routing.app, but mysite.asgi:application was "
                "found (mysite/asgi.py:13)."
            ),
            "Name the one to serve:  djasgi serve mysite.routing:app",
        ],
    ),
    "module with the name of a server": (
        {"hypercorn.py": "async def application(scope, receive, send): ...\n"},
        "hypercorn:application",
        PROJECT,
        [
            (
                "hypercorn.py has the name of the package hypercorn, which djasgi itself "
                "needs."
            ),
            "Rename it: two modules of one name cannot both be imported.",
        ],
    ),
    "lifespan on, without one": (
        {},
        "--lifespan on",
        PROJECT,
        [
            "The application has no lifespan (--lifespan on).",
            "Django's own has none: use --lifespan auto, or wrap it in one that does.",
        ],
    ),
    "middleware: not module:attribute": (
        {},
        "--middleware mysite",
        USAGE,
        [
            (
                "Invalid value for '--middleware': expected module:attribute, such as "
                "asgi_library:Middleware, not 'mysite'."
            ),
            "Try: djasgi serve --help",
        ],
    ),
    "middleware: module missing": (
        {"extra.py": ""},
        "--middleware extr:outer",
        PROJECT,
        [
            "There is no module extr for the middleware extr:outer (--middleware).",
            "Did you mean extra:outer?",
        ],
    ),
    "middleware: attribute missing": (
        {"extra.py": "def outer(app): return app\n"},
        "--middleware extra:outr",
        PROJECT,
        [
            'extra has no "outr" for the middleware extra:outr (--middleware).',
            'It defines "outer".',
        ],
    ),
    "middleware: module raises": (
        {"extra.py": "raise ValueError('no key')\n"},
        "--middleware extra:outer",
        PROJECT,
        ["The project does not load: ValueError: no key", "Look at extra.py:1."],
    ),
    "middleware raises": (
        {"extra.py": "def outer(app):\n    raise ValueError('no key')\n"},
        "--middleware extra:outer",
        PROJECT,
        ["The project does not load: ValueError: no key", "Look at extra.py:2."],
    ),
    "middleware returns nothing": (
        {"extra.py": "def outer(app): ...\n"},
        "--middleware extra:outer",
        PROJECT,
        [
            "The middleware extra:outer returned None, not an application.",
            TAKES_AN_APP,
        ],
    ),
    "middleware takes no application": (
        {"extra.py": "def outer(): ...\n"},
        "--middleware extra:outer",
        PROJECT,
        [
            (
                "The middleware extra:outer cannot be called with the application: outer() "
                "takes 0 positional arguments but 1 was given."
            ),
            TAKES_AN_APP,
        ],
    ),
    "production with DEBUG": (
        {},
        "--env production",
        USAGE,
        [
            "DEBUG is on in mysite.settings: refused for the environment 'production'.",
            "Set DEBUG = False there, or serve another environment.",
        ],
    ),
}


@on_all_servers
@pytest.mark.parametrize("case", LOADING)
def test_what_does_not_load(project: Project, server: str, case: str) -> None:
    files, arguments, code, says = LOADING[case]
    root = project(files)

    told = refused("serve", *shlex.split(arguments), "--server", server, cwd=root)

    assert told.code == code
    assert told.lines == lines(root, says)
    if is_of_the_project(told):
        place = re.match(r"Look at ([^:]+):(\d+)", told.lines[1])
        assert place
        frame = f'File "{root}/{place[1]}", line {place[2]}'
        assert frame in told.traceback
        assert told.traceback.count("/site-packages/") == 0
    else:
        assert told.traceback == ""


def lines(root: Path, says: Sequence[str]) -> list[str]:
    text = [line.replace("{root}", str(root)) for line in says]
    return [f"Error: {text[0]}", *text[1:]]


def is_of_the_project(told: Refusal) -> bool:
    return " does not load: " in told.lines[0] and ".py:" in told.lines[1]


@on_all_servers
@pytest.mark.parametrize("module", ["config.settings.local", "config.settings.missing"])
def test_settings_that_asgi_py_assigns(
    project: Project, server: str, module: str
) -> None:
    text = f"""
        import os
        from django.core.asgi import get_asgi_application
        os.environ["DJANGO_SETTINGS_MODULE"] = "{module}"
        application = get_asgi_application()
        """
    root = project({"config/asgi.py": text}, "settings_package")
    env = {"DJANGO_SETTINGS_MODULE": "config.settings.production"}

    told = refused("serve", "--server", server, cwd=root, env=env)

    assert told.code == USAGE
    assert told.lines == [
        (
            f"Error: The settings in force are {module}, not config.settings.production "
            "(DJANGO_SETTINGS_MODULE)."
        ),
        (
            "config/asgi.py:3 sets DJANGO_SETTINGS_MODULE, whatever was asked for: use "
            "os.environ.setdefault() there."
        ),
    ]


LIFESPAN = """
    import sys

    async def message(receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no\\x1b[2J database"})

    async def silent(receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed"})

    async def raises(receive, send):
        await receive()
        raise RuntimeError("no database")

    async def exits(receive, send):
        await receive()
        sys.exit(0)

    async def application(scope, receive, send):
        if scope["type"] == "lifespan":
            await KIND(receive, send)
    """


@on_all_servers
@pytest.mark.parametrize(
    ("kind", "before"),
    [
        ("message", r"no\\x1b\[2J database"),
        ("silent", ""),
        (
            "raises",
            r'Traceback .* File "{app}", line 13, .*\nRuntimeError: no database',
        ),
        (
            "exits",
            r'Traceback .* File "{app}", line 17, .*\nRuntimeError: SystemExit: 0',
        ),
    ],
)
def test_lifespan_that_fails(
    project: Project, server: str, kind: str, before: str
) -> None:
    root = project({"app.py": LIFESPAN.replace("KIND", kind)})

    told = refused("serve", "app", "--workers", "2", "--server", server, cwd=root)

    assert told.code == PROJECT
    assert told.lines == [
        "Error: The application failed to start (lifespan.startup).",
        "Mend what it says, or start without it: --lifespan off.",
    ]
    pattern = before.replace("{app}", str(root / "app.py"))
    assert re.fullmatch(pattern, told.traceback, re.DOTALL), told.traceback


@on_all_servers
def test_files_beside_the_project_do_not_shadow_the_servers(
    project: Project, server: str
) -> None:
    names = ("uvicorn", "hypercorn", "daphne", "h11", "wsproto", "twisted", "click")
    root = project({f"{name}.py": "raise ValueError('shadowed')" for name in names})

    with Server(root, "--server", server) as process:
        response, _ = process.get()

        assert response.status == 200
        assert process.stop() == 0
    assert "shadowed" not in process.log


@on_all_servers
def test_models_imported_too_early_work_with_a_warning(
    project: Project, server: str
) -> None:
    text = """
        from django.contrib.contenttypes.models import ContentType
        from django.core.asgi import get_asgi_application
        application = get_asgi_application()
        """
    root = project({"shop/asgi.py": text}, "no_asgi")
    settings = root / "shop" / "settings.py"
    app = "django.contrib.contenttypes"
    settings.write_text(f"{settings.read_text()}INSTALLED_APPS = ['{app}']\n")

    with Server(root, "--server", server) as process:
        response, _ = process.get()

        assert response.status == 200
        process.wait_for(r"WARNING shop/asgi\.py:1 uses models before Django is set up")
        assert process.stop() == 0


# --- where the project is ---


def test_no_project(tmp_path: Path) -> None:
    for command in (("serve",), ("explain",), ("manage", "migrate")):
        told = refused(*command, cwd=tmp_path)

        assert told.code == PROJECT
        assert told.lines == [
            (
                f"Error: No Django project was found in {tmp_path} or near it: there is no "
                "manage.py."
            ),
            "Go into the project's folder, or name it: --project DIR"
            + (
                "" if command[0] == "manage" else ", or djasgi serve module:application"
            ),
        ]


def test_several_projects(project: Project) -> None:
    told = refused("serve", cwd=project(name="several_projects"))

    assert told.code == PROJECT
    assert told.lines == [
        "Error: There are several projects: blog/manage.py, shop/manage.py.",
        "Choose one with --project DIR, for example --project blog",
    ]


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o100], ids=["none", "list", "enter"])
@pytest.mark.parametrize("how", ["cwd", "--project"])
def test_folder_without_permission(
    project: Project, tmp_path: Path, mode: int, how: str
) -> None:
    root = project()
    root.chmod(mode)
    named = () if how == "cwd" else ("--project", str(root))
    cwd = root if how == "cwd" else tmp_path
    try:
        told = refused(
            "serve", *named, cwd=cwd, prefix=without_privileges(), folder=tmp_path
        )
    finally:
        root.chmod(0o700)

    assert told.code == PROJECT
    assert (
        told.lines[0] == f"Error: The folder {root} cannot be read: Permission denied."
    )
    assert "--project" in told.lines[1]


@on_all_servers
@pytest.mark.parametrize("name", ["mysite/asgi.py", "mysite/settings.py", "mysite"])
def test_code_without_permission(project: Project, server: str, name: str) -> None:
    root = project()
    (root / name).chmod(0)
    try:
        told = refused(
            "serve", "--server", server, cwd=root, prefix=without_privileges()
        )
    finally:
        (root / name).chmod(0o700)

    assert told.code == PROJECT
    assert told.lines == [
        f"Error: {name} cannot be read: Permission denied.",
        "Make it readable for the user that runs djasgi.",
    ]


def test_working_directory_that_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    told = refused(
        "serve", cwd=gone, prefix=("sh", "-c", 'rmdir ../gone; exec "$@"', "sh"),
        folder=tmp_path.parent / "nowhere",
    )  # fmt: skip

    assert told.code == PROJECT
    assert told.lines == [
        "Error: The working directory does not exist any more.",
        "Change to the project's folder: cd DIR",
    ]


@pytest.mark.parametrize(
    "name", ["with space", "ünï", "tab\tand\nnewline", "esc\x1b[31m", "col:on.py"]
)
def test_odd_folder_names_work_and_cannot_steer_a_terminal(
    project: Project, tmp_path: Path, name: str
) -> None:
    root = project()
    odd = tmp_path / name / "project"
    odd.parent.mkdir()
    shutil.move(root, odd)

    told = refused("serve", "mysite/agsi.py", cwd=odd)
    with Server(odd, "mysite/asgi.py") as process:
        response, _ = process.get()

        assert response.status == 200
        assert process.stop() == 0
    assert told.code == PROJECT
    assert told.lines[1].endswith("/project/mysite/asgi.py?")
    assert all(line.isprintable() for line in process.lines)


# --- environments ---


def test_unknown_environment(project: Project) -> None:
    root = project(name="settings_package")
    there = "config.settings.local, config.settings.production, config.settings.test"

    near = refused("serve", "--env", "prodution", cwd=root)
    far = refused("serve", cwd=root, env={"DJASGI_ENV": "qa"})

    assert (near.code, far.code) == (USAGE, USAGE)
    assert near.lines == [
        (
            "Error: There are no settings for the environment 'prodution'. There are: "
            f"{there}."
        ),
        "Did you mean --env production?",
    ]
    assert far.lines == [
        f"Error: There are no settings for the environment 'qa'. There are: {there}.",
        (
            "Name one of them with --settings, or give the environment a table: "
            '[tool.djasgi.env.qa] settings = "…"'
        ),
    ]


def test_inherited_settings_that_contradict_the_environment(project: Project) -> None:
    root = project(name="settings_package")
    env = {"DJANGO_SETTINGS_MODULE": "config.settings.local"}

    told = refused("serve", "--env", "production", cwd=root, env=env)

    assert told.code == USAGE
    assert told.lines == [
        (
            "Error: DJANGO_SETTINGS_MODULE is config.settings.local (inherited), which "
            "contradicts config.settings.production (--env)."
        ),
        "Pass --settings, or unset it: env -u DJANGO_SETTINGS_MODULE djasgi …",
    ]


def test_manage_py_that_assigns_other_settings(project: Project) -> None:
    text = """
        import os
        import django
        os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings.local"
        """
    root = project({"manage.py": text}, "settings_package")

    told = refused("manage", "--env", "production", "migrate", cwd=root)

    assert told.code == USAGE
    assert told.lines == [
        (
            "Error: manage.py:3 assigns DJANGO_SETTINGS_MODULE = config.settings.local, "
            "not config.settings.production (--env)."
        ),
        "Use os.environ.setdefault() in manage.py.",
    ]


def test_production_that_would_run_with_development_settings(project: Project) -> None:
    root = project(name="settings_package")
    for name in ("production", "test"):
        (root / "config" / "settings" / f"{name}.py").unlink()

    told = refused("serve", "--env", "production", cwd=root)

    assert told.code == USAGE
    assert told.lines == [
        (
            "Error: The environment 'production' would run with config.settings.local, the "
            "default of config/asgi.py:5."
        ),
        (
            "Give it settings: --settings MODULE, or [tool.djasgi.env.production] "
            "settings = …"
        ),
    ]


@on_all_servers
@pytest.mark.parametrize("name", ["mysite/settings.py", ".settings", "mysite settings"])
def test_inherited_settings_that_are_no_module_name(
    project: Project, server: str, name: str
) -> None:
    env = {"DJANGO_SETTINGS_MODULE": name}

    told = refused("serve", "--server", server, cwd=project(), env=env)

    assert told.code == PROJECT
    assert told.lines == [
        f"Error: The settings module {name} (DJANGO_SETTINGS_MODULE) does not exist.",
        "Did you mean mysite.settings?",
    ]


@on_all_servers
def test_settings_that_are_missing_among_several(project: Project, server: str) -> None:
    root = project(name="settings_package")
    named = ("--settings", "config.settings.prod")

    told = refused("serve", *named, "--server", server, cwd=root)

    assert told.code == PROJECT
    assert told.lines == [
        "Error: The settings module config.settings.prod (--settings) does not exist.",
        "Did you mean config.settings.production?",
    ]


# --- the configuration file ---

FILES: dict[str, tuple[str, list[str]]] = {
    "unknown key": (
        '[project]\nname = "x"\n[tool.djasgi]\nworkes = 2\n',
        [
            "pyproject.toml:4: 'workes' is not a key that djasgi knows.",
            "Did you mean 'workers'?",
        ],
    ),
    "unknown key of an environment": (
        '[tool.djasgi.env.production]\nsetings = "x"\n',
        [
            "pyproject.toml:2: 'setings' is not a key that djasgi knows.",
            "Did you mean 'settings'?",
        ],
    ),
    "unknown key, unlike any other": (
        "[tool.djasgi]\nzzzz = 2\n",
        [
            "pyproject.toml:2: 'zzzz' is not a key that djasgi knows.",
            "The keys are the long options: djasgi serve --help",
        ],
    ),
    "wrong type": (
        '[tool.djasgi]\nport = "eighty"\n',
        [
            (
                "pyproject.toml:2: port: expected a whole number from 0 to 65535, not "
                "'eighty'."
            ),
            "The TCP port; 0 takes a free one.",
        ],
    ),
    "wrong type, a boolean": (
        "[tool.djasgi]\nport = true\n",
        [
            "pyproject.toml:2: port: expected a whole number from 0 to 65535, not true.",
            "The TCP port; 0 takes a free one.",
        ],
    ),
    "wrong value": (
        '[tool.djasgi]\nserver = "gunicorn"\n',
        [
            (
                "pyproject.toml:2: server: expected one of uvicorn, hypercorn, daphne, not "
                "'gunicorn'."
            ),
            "The server that speaks to the clients.",
        ],
    ),
    "wrong application": (
        '[tool.djasgi]\napp = "mysite asgi"\n',
        [
            'pyproject.toml:2: "mysite asgi" is not an application.',
            (
                "Accepted: module, module:attribute, module:factory(), app.py or "
                "app.py:attribute"
            ),
        ],
    ),
    "no environments": (
        '[tool.djasgi]\nenv = "production"\n',
        [
            (
                "pyproject.toml:2: env: expected tables such as "
                "[tool.djasgi.env.production]."
            ),
            "See the README, section Environments.",
        ],
    ),
    "wrong type of a variable": (
        "[tool.djasgi.env.x.variables]\nA = 3\n",
        [
            "pyproject.toml:2: A: expected a string.",
            "See the README, section Environments.",
        ],
    ),
    "wrong name of a variable": (
        '[tool.djasgi.env.x.variables]\n"A=B" = "3"\n',
        [
            "pyproject.toml:2: A=B: expected the name of a variable.",
            "See the README, section Environments.",
        ],
    ),
    "contradiction": (
        '[tool.djasgi]\nport = 1\nuds = "x"\n',
        [
            (
                "pyproject.toml:2 and pyproject.toml:3 contradict each other: each says "
                "where to listen."
            ),
            "Keep one, or give several addresses with --bind.",
        ],
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_configuration_file(project: Project, case: str) -> None:
    text, says = FILES[case]
    root = project({"pyproject.toml": text})

    told = refused("serve", cwd=root, env={"DJASGI_PORT": ""})

    assert told.code == USAGE
    assert told.lines == lines(root, says)


def test_configuration_file_that_is_not_toml(project: Project) -> None:
    root = project({"pyproject.toml": "[tool.djasgi\n"})

    told = refused("serve", cwd=root)

    assert told.code == USAGE
    assert told.lines[0].startswith(f"Error: {root}/pyproject.toml is not valid TOML: ")
    assert "line 1" in told.lines[0]
    assert told.lines[1] == "Mend the file; djasgi reads its own settings from it."


def test_configuration_file_without_permission(project: Project) -> None:
    root = project({"pyproject.toml": "[tool.djasgi]\n"})
    (root / "pyproject.toml").chmod(0)

    told = refused("serve", cwd=root, prefix=without_privileges())

    assert told.code == USAGE
    assert told.lines == [
        f"Error: {root}/pyproject.toml cannot be read: Permission denied.",
        "Make it readable for the user that runs djasgi.",
    ]


def test_both_configuration_files(project: Project) -> None:
    root = project(
        {"pyproject.toml": "[tool.djasgi]\nport = 1\n", "djasgi.toml": "port = 2\n"}
    )

    told = refused("serve", cwd=root)

    assert told.code == USAGE
    assert told.lines == [
        f"Error: Both {root}/pyproject.toml and djasgi.toml configure djasgi.",
        "Keep one: move everything into it and delete the other.",
    ]


def test_tables_of_pyproject_in_djasgi_toml(project: Project) -> None:
    root = project({"djasgi.toml": "# tables\n[tool.djasgi]\nport = 2\n"})

    told = refused("serve", cwd=root)

    assert told.code == USAGE
    assert told.lines == [
        "Error: djasgi.toml:2: 'tool' is not a key that djasgi knows.",
        "In djasgi.toml the tables are written without tool.djasgi.",
    ]


def test_env_file_that_is_missing(project: Project) -> None:
    table = '[tool.djasgi.env.test]\nenv-file = ".env.test"\n'
    root = project({"pyproject.toml": table})

    told = refused("serve", "--env", "test", cwd=root)

    assert told.code == USAGE
    assert told.lines == [
        (
            f"Error: The env file {root}/.env.test cannot be read: No such file or "
            "directory."
        ),
        "Check --env-file, DJASGI_ENV_FILE or env-file in the configuration.",
    ]


# --- the command line and the environment's variables ---

NUMBER = "expected a whole number from 0 to 65535"
ADDRESS = "expected HOST:PORT, [IPv6]:PORT, unix:PATH or fd://NUMBER"
PROXIES = "expected IP addresses or networks, separated by commas, or *"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--port", "x"], f"'--port': {NUMBER}, not 'x'."),
        (["--port", "65536"], f"'--port': {NUMBER}, not '65536'."),
        (["--port", "-1"], f"'--port': {NUMBER}, not '-1'."),
        (
            ["--workers", "many"],
            "'--workers': expected a whole number from 0 to 512, or auto, not 'many'.",
        ),
        (
            ["--server", "gunicorn"],
            "'--server': expected one of uvicorn, hypercorn, daphne, not 'gunicorn'.",
        ),
        (["--bind", "x"], f"'-b' / '--bind': {ADDRESS}, not 'x'."),
        (
            ["--bind", "127.0.0.1:65536"],
            "'-b' / '--bind': expected a port from 0 to 65535, not '127.0.0.1:65536'.",
        ),
        (
            ["--keep-alive", "nan"],
            "'--keep-alive': expected seconds from 0 to 86400, not 'nan'.",
        ),
        (
            ["--header", "Content-Length: 3"],
            "'--header': Content-Length belongs to the server: it cannot be set here.",
        ),
        (
            ["--uds-mode", "999"],
            "'--uds-mode': expected octal permissions such as \"0660\", not '999'.",
        ),
        (
            ["--forwarded-allow-ips", "nobody"],
            (
                f"'--forwarded-allow-ips': {PROXIES}: 'nobody' does not appear to be an "
                "IPv4 or IPv6 network."
            ),
        ),
        (["-o", "limit"], "'-o' / '--native': expected name=value, not 'limit'."),
        (
            ["--settings", "my\x1b[2Jsite"],
            (
                "'--settings': expected a dotted module name such as config.settings, not "
                "'my\\x1b[2Jsite'."
            ),
        ),
        (["--uds", ""], "'--uds': expected a path, not ''."),
    ],
    ids=" ".join,
)
def test_value_on_the_command_line(
    tmp_path: Path, arguments: list[str], complaint: str
) -> None:
    told = refused("serve", *arguments, cwd=tmp_path)

    assert told.code == USAGE
    assert told.lines == [
        f"Error: Invalid value for {complaint}",
        "Try: djasgi serve --help",
    ]


@pytest.mark.parametrize(
    ("variable", "value", "complaint", "option"),
    [
        ("DJASGI_PORT", "x", f"{NUMBER}, not 'x'.", "--port"),
        ("PORT", "x", f"{NUMBER}, not 'x'.", "--port"),
        ("PORT", "65536", f"{NUMBER}, not '65536'.", "--port"),
        (
            "WEB_CONCURRENCY",
            "-1",
            "expected a whole number from 0 to 512, or auto, not '-1'.",
            "--workers",
        ),
        (
            "FORWARDED_ALLOW_IPS",
            "10.0.0.1/8",
            f"{PROXIES}: 10.0.0.1/8 has host bits set, not '10.0.0.1/8'.",
            "--forwarded-allow-ips",
        ),
        (
            "DJASGI_SERVER",
            "gunicorn",
            "expected one of uvicorn, hypercorn, daphne, not 'gunicorn'.",
            "--server",
        ),
        (
            "DJASGI_ACCESS_LOG",
            "maybe",
            "expected true or false, not 'maybe'.",
            "--access-log",
        ),
        ("DJASGI_BIND", "x", f"{ADDRESS}, not 'x'.", "--bind"),
    ],
)
def test_value_in_a_variable(
    project: Project, variable: str, value: str, complaint: str, option: str
) -> None:
    told = refused("serve", cwd=project(), env={variable: value})

    assert told.code == USAGE
    assert told.lines[0] == f"Error: {variable}: {complaint}"
    assert told.lines[1].startswith(f"It is {option}: ")


def test_application_in_a_variable(project: Project) -> None:
    told = refused("serve", cwd=project(), env={"DJASGI_APP": "mysite.asgi:"})

    assert told.code == USAGE
    assert told.lines == [
        'Error: DJASGI_APP: "mysite.asgi:" is not an application.',
        (
            "Accepted: module, module:attribute, module:factory(), app.py or "
            "app.py:attribute"
        ),
    ]


WHERE = "contradict each other: each says where to listen."


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--fd 3 --port 1", f"--port and --fd {WHERE}"),
        ("--uds x --host 127.0.0.1", f"--host and --uds {WHERE}"),
        ("--bind 127.0.0.1:0 --port 1", f"--port and --bind {WHERE}"),
        ("--uds x --fd 3", f"--uds and --fd {WHERE}"),
        ("--uds-mode 0600", "--uds-mode is for a unix socket, and there is none."),
        (
            "--no-proxy-headers --forwarded-allow-ips 10.0.0.1",
            "--forwarded-allow-ips and --no-proxy-headers contradict each other.",
        ),
        (
            "--ssl-keyfile x",
            "Without --ssl-certfile there is no TLS for --ssl-keyfile.",
        ),
        (
            "--ssl-certfile x --ssl-cert-reqs required",
            "--ssl-cert-reqs required needs --ssl-ca-certs.",
        ),
        (
            "--ssl-certfile x --ssl-min-version 1.3 --ssl-ciphers AESGCM",
            "--ssl-ciphers has no effect with --ssl-min-version 1.3.",
        ),
    ],
)
def test_contradictions(project: Project, arguments: str, says: str) -> None:
    told = refused("serve", *arguments.split(), cwd=project())

    assert told.code == USAGE
    assert told.lines[0] == f"Error: {says}"


def test_contradictory_variables(project: Project) -> None:
    env = {"DJASGI_PORT": "1", "DJASGI_FD": "3"}

    told = refused("serve", cwd=project(), env=env)

    assert told.code == USAGE
    assert told.lines[0] == f"Error: DJASGI_PORT and DJASGI_FD {WHERE}"


@pytest.mark.parametrize("command", ["serve", "explain"])
def test_option_that_the_server_refuses(project: Project, command: str) -> None:
    table = '[tool.djasgi]\nserver = "uvicorn"\nhttp2 = true\n'
    typed = ("--server", "uvicorn", "--http2")
    root = project()

    on_the_command_line = refused(command, *typed, cwd=root)
    (root / "pyproject.toml").write_text(table)
    in_a_file = refused(command, cwd=root)

    remedy = "hypercorn and daphne can:  djasgi serve --server hypercorn"
    assert (on_the_command_line.code, in_a_file.code) == (USAGE, USAGE)
    assert on_the_command_line.lines == [
        "Error: uvicorn cannot do --http2.",
        remedy,
    ]
    assert in_a_file.lines == [
        "Error: uvicorn cannot do --http2 (pyproject.toml:3).",
        remedy,
    ]


NATIVE = {
    "uvicorn": ("reset_contextvars", "true or false", "host"),
    "hypercorn": ("read_timeout", "a whole number of at least 0", "workers"),
    "daphne": ("http_timeout", "seconds from 0 to 2.14748e+09", "root_path"),
}


@on_all_servers
def test_native_settings(project: Project, server: str) -> None:
    name, expected, owned = NATIVE[server]
    root = project()

    def told(setting: str) -> list[str]:
        refusal = refused("serve", "--server", server, "-o", setting, cwd=root)
        assert refusal.code == USAGE
        return refusal.lines

    assert told(f"{name}x=1") == [
        f"Error: -o {name}x: {server} has no such setting.",
        f"Did you mean {name}?",
    ]
    assert told("zzzzzz=1") == [
        f"Error: -o zzzzzz: {server} has no such setting.",
        f"See the documentation of {server}'s configuration.",
    ]
    assert told(f"{name}=abc") == [
        f"Error: -o {name}=abc: expected {expected}.",
        "Give such a value, or leave it out.",
    ]
    assert told(f"{owned}=1") == [
        f"Error: -o {owned}: {owned} belongs to djasgi.",
        f"Use --{owned.replace('_', '-')}.",
    ]


# --- addresses ---


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def holder() -> str:
    """How this process is named by others."""
    comm = Path("/proc/self/comm")
    return (
        f" by {comm.read_text().strip()} (pid {os.getpid()})" if comm.exists() else ""
    )


@on_all_servers
@pytest.mark.parametrize("workers", ["0", "2"])
def test_port_in_use(
    project: Project, listener: socket.socket, server: str, workers: str
) -> None:
    port = str(listener.getsockname()[1])
    arguments = ("--port", port, "--workers", workers, "--server", server)

    told = refused("serve", *arguments, cwd=project())

    assert told.code == LISTEN
    assert told.lines == [
        f"Error: 127.0.0.1:{port} is in use{holder()}.",
        "Stop that one, or choose another port with --port.",
    ]


def test_port_of_the_platform_in_use(project: Project, listener: socket.socket) -> None:
    port = str(listener.getsockname()[1])

    told = refused("serve", cwd=project(), env={"DJASGI_PORT": "", "PORT": port})

    assert told.code == LISTEN
    assert re.fullmatch(
        rf"Error: .*:{port} is in use{re.escape(holder())}\.", told.lines[0]
    )


@on_all_servers
def test_port_in_use_by_another_djasgi(
    project: Project, tmp_path: Path, server: str
) -> None:
    root = project()
    elsewhere = copy_project("no_asgi", tmp_path)

    with Server(elsewhere) as other:
        port = str(other.port)
        told = refused("serve", "--port", port, "--server", server, cwd=root)

        assert told.code == LISTEN
        assert re.fullmatch(
            rf"Error: 127\.0\.0\.1:{port} is in use( by .+ \(pid {other.pid}\))?\.",
            told.lines[0],
        )
        assert other.get()[0].status == 200
        assert other.stop() == 0


@on_all_servers
@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("nothere.invalid", "The host nothere.invalid does not resolve: "),
        ("a" * 70, f"The host {'a' * 70} does not resolve: not a host name."),
        ("192.0.2.1", "192.0.2.1 is not an address of this machine."),
    ],
    ids=["unknown", "no name", "not ours"],
)
def test_hosts(project: Project, server: str, host: str, says: str) -> None:
    told = refused("serve", "--host", host, "--server", server, cwd=project())

    assert told.code == LISTEN
    assert told.lines[0].startswith(f"Error: {says}")
    assert "--host" in told.lines[1]


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path leaves room for the name of a socket."""
    return tmp_path_factory.mktemp("s")


@on_all_servers
@pytest.mark.parametrize("kind", ["file", "folder", "link", "fifo"])
def test_unix_path_that_is_taken(
    project: Project, short: Path, server: str, kind: str
) -> None:
    path = short / kind
    match kind:
        case "file":
            path.write_text("mine")
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to("elsewhere")
        case "fifo":
            os.mkfifo(path)
    inode = path.lstat().st_ino
    root = project()

    told = refused(
        "serve", "--uds", str(path), "--server", server, cwd=root, folder=short
    )

    assert told.code == LISTEN
    assert told.lines == [
        f"Error: {path} exists and is not a socket.",
        "Remove it, or choose another path.",
    ]
    assert path.lstat().st_ino == inode


@on_all_servers
def test_unix_path_of_somebody_else(project: Project, short: Path, server: str) -> None:
    path = short / "live"
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        live.listen()
        told = refused(
            "serve", "--uds", str(path), "--server", server, cwd=project(), folder=short
        )
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))

    assert told.code == LISTEN
    assert told.lines == [
        f"Error: {path} is in use{holder()}.",
        "Stop that one, or choose another path.",
    ]


@on_all_servers
def test_unix_path_that_is_stale_works(
    project: Project, short: Path, server: str
) -> None:
    path = short / "stale"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    address = ("--uds", str(path))
    with Server(project(), "--server", server, address=address) as process:
        process.ready()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(TIMEOUT)
            client.connect(str(path))

        assert process.stop() == 0
    assert not path.exists()


@on_all_servers
def test_unix_path_without_its_folder_or_too_long(
    project: Project, short: Path, server: str
) -> None:
    root = project()

    def told(path: Path) -> list[str]:
        refusal = refused("serve", "--uds", str(path), "--server", server, cwd=root)
        assert refusal.code == LISTEN
        return refusal.lines

    missing = short / "no such" / "socket"
    assert told(missing) == [
        f"Error: The directory of the socket {missing} does not exist.",
        f"Make it first: mkdir -p '{missing.parent}'",
    ]
    long = short / ("x" * 120)
    assert re.fullmatch(
        rf"Error: The path of the unix socket is too long: {len(str(long))} bytes, at "
        r"most \d+ are possible\.",
        told(long)[0],
    )


@on_all_servers
def test_descriptors_that_are_no_listening_socket(
    project: Project, server: str
) -> None:
    root = project()
    run = f'exec "$@" --server {server}'

    def told(number: int, opened: str) -> list[str]:
        refusal = refused(
            "serve", "--fd", str(number), cwd=root,
            prefix=("bash", "-c", f"{opened} {run}", "bash"),
        )  # fmt: skip
        assert refusal.code == LISTEN
        assert refusal.lines[1] == (
            "Pass a bound stream socket, as systemd does for a .socket unit."
        )
        return refusal.lines[:1]

    assert told(77, "") == ["Error: File descriptor 77 is not open."]
    assert told(7, "exec 7</dev/null;") == ["Error: File descriptor 7 is not a socket."]
    with socket.socket(type=socket.SOCK_DGRAM) as datagram:
        datagram.bind(("127.0.0.1", 0))
        port = datagram.getsockname()[1]
        assert told(7, f"exec 7<>/dev/udp/127.0.0.1/{port};") == [
            "Error: File descriptor 7 is not a TCP or unix stream socket."
        ]


# --- TLS ---


class Files:
    """Certificates and keys, right and wrong."""

    def __init__(self, root: Path) -> None:
        issued, other = (trustme.CA().issue_cert("localhost") for _ in range(2))
        self.root = root
        self.cert = self.write("cert.pem", issued.cert_chain_pems[0].bytes())
        self.key = self.write("key.pem", issued.private_key_pem.bytes())
        self.other = self.write("other.pem", other.private_key_pem.bytes())
        self.garbage = self.write("garbage.pem", b"garbage")
        self.missing = root / "missing.pem"
        self.wrong = self.write("password", b"wrong\n")
        key = serialization.load_pem_private_key(self.key.read_bytes(), None)
        self.locked = self.write(
            "locked.pem",
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"right"),
            ),
        )
        self.unreadable = self.write("unreadable.pem", self.cert.read_bytes())
        self.unreadable.chmod(0)

    def write(self, name: str, content: bytes) -> Path:
        path = self.root / name
        path.write_bytes(content)
        return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


PEM = "Give the certificate, and those between it and the root, as PEM."
READ = "Give a file that exists and that this user may read."

TLS: dict[str, tuple[str, list[str]]] = {
    "certificate missing": (
        "--ssl-certfile {missing}",
        ["--ssl-certfile: cannot read {missing}: no such file or directory.", READ],
    ),
    "certificate unreadable": (
        "--ssl-certfile {unreadable}",
        ["--ssl-certfile: cannot read {unreadable}: permission denied.", READ],
    ),
    "certificate is garbage": (
        "--ssl-certfile {garbage}",
        ["--ssl-certfile: {garbage} has no certificate in it.", PEM],
    ),
    "key missing": (
        "--ssl-certfile {cert} --ssl-keyfile {missing}",
        ["--ssl-keyfile: cannot read {missing}: no such file or directory.", READ],
    ),
    "key not given": (
        "--ssl-certfile {cert}",
        [
            "--ssl-certfile: {cert} has no private key in it.",
            "Name the file with the key (PEM) with --ssl-keyfile.",
        ],
    ),
    "key of another certificate": (
        "--ssl-certfile {cert} --ssl-keyfile {other}",
        [
            (
                "--ssl-keyfile: {other} has a key that does not belong to the certificate "
                "in {cert}."
            ),
            "The server's own certificate comes first in its file; give its key.",
        ],
    ),
    "password not given": (
        "--ssl-certfile {cert} --ssl-keyfile {locked}",
        [
            "--ssl-keyfile: {locked} has a key that is encrypted.",
            "Give its password with --ssl-keyfile-password-file.",
        ],
    ),
    "password wrong": (
        (
            "--ssl-certfile {cert} --ssl-keyfile {locked} "
            "--ssl-keyfile-password-file {wrong}"
        ),
        [
            (
                "--ssl-keyfile: {locked} has a key that the password in "
                "--ssl-keyfile-password-file does not open."
            ),
            "The password is the first line of that file, spaces included.",
        ],
    ),
}


@on_all_servers
@pytest.mark.parametrize("case", TLS)
def test_tls_files_are_checked_before_the_port_is_touched(
    project: Project, files: Files, listener: socket.socket, server: str, case: str
) -> None:
    arguments, says = TLS[case]
    known = {name: str(path) for name, path in vars(files).items()}
    port = listener.getsockname()[
        1
    ]  # in use: that would be said, if it were bound first
    named = [part.format(**known) for part in arguments.split()]

    told = refused(
        "serve", *named, "--port", str(port), "--server", server,
        cwd=project(), prefix=without_privileges(),
    )  # fmt: skip

    assert told.code == LISTEN
    assert told.lines == lines(files.root, [line.format(**known) for line in says])


# --- what the process is given ---


@on_all_servers
@pytest.mark.parametrize("limit", [5, 9, 13, 17, 25])
def test_too_few_file_descriptors(project: Project, server: str, limit: int) -> None:
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    # Measuring the coverage of the command needs descriptors, too.
    unmeasured = (
        "env",
        *(f"--unset=COVERAGE_PROCESS_{n}" for n in ("START", "CONFIG")),
    )

    told = refused(
        "serve", "--workers", "2", "--server", server,
        cwd=project(), prefix=unmeasured, preexec=lower,
    )  # fmt: skip

    assert told.code == LISTEN
    assert told.traceback == ""
    assert told.lines == [
        f"Error: Too many open files: the limit is {limit} (ulimit -n).",
        (
            "Raise it where djasgi is started from: LimitNOFILE= in a systemd unit, ulimits "
            "in a container, or as root: ulimit -n 4096"
        ),
    ]


def test_a_project_that_runs_out_of_file_descriptors(project: Project) -> None:
    text = "kept = [open('manage.py') for _ in range(100)]\n"

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (80, 100))

    told = refused("serve", cwd=project({SETTINGS: text}), preexec=lower)

    assert told.code == LISTEN
    assert told.lines == [
        "Error: Too many open files: the limit is 80 (ulimit -n).",
        "Raise it before starting: ulimit -n 100",
    ]


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", f"exec {shlex.join(DJASGI)} {command}"],
        cwd=cwd,
        env=environment(DJASGI_PORT="0"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


@on_all_servers
@pytest.mark.parametrize("closed", [">&-", "<&-", "<&- >&-"])
def test_closed_streams(project: Project, server: str, closed: str) -> None:
    command = f"serve mysite.asgi:aplication --server {server} {closed}"

    result = shell(command, project())

    assert result.returncode == PROJECT
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        'Error: mysite/asgi.py has no "aplication".',
        'It defines "application":  djasgi serve mysite.asgi:application',
    ]


@on_all_servers
def test_serving_with_closed_streams(
    project: Project, short: Path, server: str
) -> None:
    path = short / "socket"
    closed = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    address = ("--uds", str(path))

    with Server(
        project(), "--server", server, address=address, prefix=closed
    ) as process:
        until(lambda: is_answered(path), "an answer")

        assert process.stop() == 0
    assert process.log == ""


def is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(TIMEOUT)
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return client.recv(12) == b"HTTP/1.1 200"


def test_errors_do_not_go_to_standard_output_when_there_is_no_other(
    project: Project,
) -> None:
    result = shell("serve mysite.asgi:aplication 2>&-", project())

    assert result.returncode == PROJECT
    assert (result.stdout, result.stderr) == ("", "")


def test_output_that_cannot_be_written(project: Project) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")

    result = shell("explain > /dev/full", project())

    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "Error: The output cannot be written: No space left on device.",
        "Send it somewhere else.",
    ]


def test_unknown_variables_are_warned_about(project: Project) -> None:
    result = djasgi(
        "explain", "--format", "json", cwd=project(), env={"DJASGI_WORKES": "2"}
    )

    assert result.returncode == 0
    assert json.loads(result.stdout)["warnings"] == [
        (
            "DJASGI_WORKES is not a variable that djasgi knows: did you mean "
            "DJASGI_WORKERS?"
        )
    ]
