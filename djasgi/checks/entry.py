"""The entry point: import order, the settings it falls back to, ASGI_APPLICATION."""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from djasgi.checks.base import Finding, Needs, Place, check
from djasgi.checks.context import Context
from djasgi.checks.websockets import speaks_websocket
from djasgi.discovery import settings_default
from djasgi.modules import imported_module, module_file
from djasgi.plan import asgi_application_target
from djasgi.source import calls, statements
from djasgi.sources import Module

CHANNELS = "https://channels.readthedocs.io/en/stable/deploying.html"
MAX_STEPS = 2000


@dataclass(frozen=True, slots=True)
class _Reached:
    """A statement that Django must be set up for, and the imports that lead to it."""

    what: str
    place: Place
    trail: tuple[Place, ...]


@check(
    "E001",
    "Models are imported before Django is set up",
    row=7,
    needs=Needs.FILES,
    why="get_asgi_application() sets Django up. What is imported before it, and defines or "
    'imports models, stops with AppRegistryNotReady ("Apps aren\'t loaded yet"). An '
    "import sorter that moves one line is enough. djasgi sets Django up first, so this is "
    "said only where a file starts the native server.",
    links=(CHANNELS, "https://docs.djangoproject.com/en/stable/ref/applications/"),
    example="# asgi.py\nfrom chat.routing import urlpatterns   # imports models\n"
    "from django.core.asgi import get_asgi_application\n\n"
    "application = get_asgi_application()",
)
def models_too_early(context: Context) -> Iterator[Finding]:
    for module in _launched_modules(context):
        stop = _first_line(module, ("get_asgi_application", "setup"))
        reached = _reached(context, module, stop, _needs_models)
        if stop and reached:
            yield Finding(
                f"{context.shown(module.path)} imports this before it calls "
                f"get_asgi_application() in line {stop}: {reached.what}.",
                "Move the import below that call, and mark it: # noqa: E402",
                reached.trail[0] if reached.trail else reached.place,
                trail=(*reached.trail[1:], reached.place) if reached.trail else (),
            )


@check(
    "E002",
    "Settings are read before it is said which",
    row=8,
    needs=Needs.FILES,
    why="A module that reads a setting when it is imported needs DJANGO_SETTINGS_MODULE by "
    "then. If asgi.py sets it further down, the import stops with ImproperlyConfigured. "
    "djasgi sets the variable before it imports anything, so this is said only where a "
    "file starts the native server and does not set it.",
    links=("https://docs.djangoproject.com/en/stable/topics/settings/",),
    example="# asgi.py\nfrom shop.flags import FLAGS   # settings.FLAGS, at import\n"
    'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")',
)
def settings_too_early(context: Context) -> Iterator[Finding]:
    known = {
        (launch.server.target or "").partition(":")[0]
        for launch in context.native()
        if launch.environ_known and "DJANGO_SETTINGS_MODULE" not in launch.variables
    }
    for module in _launched_modules(context):
        if module.name not in known:
            continue
        stop = _settings_line(module)
        reached = _reached(context, module, stop, _reads_settings)
        if stop and reached:
            yield Finding(
                f"{context.shown(module.path)} sets DJANGO_SETTINGS_MODULE in line "
                f"{stop}, after an import that needs it: {reached.what}.",
                "Move the import below that line.",
                reached.trail[0] if reached.trail else reached.place,
                trail=(*reached.trail[1:], reached.place) if reached.trail else (),
            )


def _launched_modules(context: Context) -> Iterator[Module]:
    names = {
        (launch.server.target or "").partition(":")[0]: None
        for launch in context.native()
    }
    for name in names:
        module = context.sources.named(name)
        if module is not None:
            yield module


def _first_line(module: Module, functions: tuple[str, ...]) -> int:
    """The line of the first call, at the top level, of one of these functions."""
    for node, guard in statements(module.tree):
        if guard.nested:
            continue
        for call in calls(node):
            if _called(call) in functions:
                return call.lineno
    return 0


def _settings_line(module: Module) -> int:
    for node, guard in statements(module.tree):
        if not guard.nested and any(
            isinstance(part, ast.Constant) and part.value == "DJANGO_SETTINGS_MODULE"
            for part in ast.walk(node)
        ):
            return node.lineno
    return 0


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


_Needs = Callable[[Module, ast.stmt], str]


def _reached(
    context: Context, start: Module, stop: int, needs: _Needs
) -> _Reached | None:
    """What the imports of `start` above the line `stop` lead to, breadth first."""
    seen = {start.name}
    pending: deque[tuple[Module, int, tuple[Place, ...]]] = deque([(start, stop, ())])
    for _ in range(MAX_STEPS):
        if not pending:
            break
        module, end, trail = pending.popleft()
        for node, guard in statements(module.tree):
            if (end and node.lineno >= end) or guard.nested or not guard.certain:
                continue
            what = needs(module, node)
            if what:
                return _Reached(what, context.module_place(module, node), trail)
            for name in _imports(node, module):
                imported = context.sources.named(name)
                if imported is not None and name not in seen:
                    seen.add(name)
                    step = (*trail, context.module_place(module, node))
                    pending.append((imported, 0, step))
    return None


def _imports(node: ast.stmt, module: Module) -> Iterator[str]:
    """The modules that an import statement may import, packages first."""
    names: list[str] = []
    match node:
        case ast.Import(names=aliases):
            names = [alias.name for alias in aliases]
        case ast.ImportFrom(names=aliases):
            source = imported_module(node, module.name, module.path)
            if source:
                names = [source, *(f"{source}.{alias.name}" for alias in aliases)]
    for name in names:
        parts = name.split(".")
        yield from (".".join(parts[: n + 1]) for n in range(len(parts)))


def _needs_models(module: Module, node: ast.stmt) -> str:
    match node:
        case ast.ClassDef(name=name, bases=bases):
            if any(ast.unparse(base) == "models.Model" for base in bases):
                imported = any(
                    isinstance(other, ast.ImportFrom)
                    and other.module in ("django.db", "django.contrib.gis.db")
                    for other in module.tree.body
                )
                return f"the model {name}" if imported else ""
        case ast.ImportFrom(module=str(source)) if source.startswith(
            "django.contrib."
        ) and source.endswith(".models"):
            return f"the models of {source.removesuffix('.models')}"
        case ast.Assign() | ast.AnnAssign() | ast.Expr():
            if any(_called(call) == "get_user_model" for call in calls(node)):
                return "get_user_model()"
    return ""


def _reads_settings(module: Module, node: ast.stmt) -> str:
    imported = any(
        isinstance(other, ast.ImportFrom)
        and other.module == "django.conf"
        and any(a.name == "settings" and a.asname is None for a in other.names)
        for other in module.tree.body
    )
    if not imported or not isinstance(node, ast.Assign | ast.AnnAssign | ast.If):
        return ""
    value = node.test if isinstance(node, ast.If) else node.value
    for part in _evaluated(value):
        match part:
            case ast.Attribute(value=ast.Name(id="settings"), attr=name):
                if name.isupper():
                    return f"settings.{name}"
    return ""


def _evaluated(node: ast.AST | None) -> Iterator[ast.AST]:
    """The parts of an expression that are evaluated with it: no lambdas."""
    pending = [node] if node else []
    while pending:
        part = pending.pop()
        if not isinstance(part, ast.Lambda):
            yield part
            pending += ast.iter_child_nodes(part)


@check(
    "W003",
    "asgi.py and wsgi.py fall back to different settings",
    row=9,
    needs=Needs.FILES,
    why="Both are entry points of production. Where nobody sets DJANGO_SETTINGS_MODULE, "
    "the move from WSGI to ASGI quietly changes the settings, in the worst case to those "
    "of development.",
    links=("https://docs.djangoproject.com/en/stable/howto/deployment/asgi/",),
    example='# wsgi.py\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", '
    '"config.settings.production")\n\n# asgi.py\n'
    'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.local")',
)
def different_defaults(context: Context) -> Iterator[Finding]:
    plan = context.plan
    if plan is None or plan.settings is None or plan.application.target is None:
        return
    own = plan.application.settings
    if own is None or plan.settings.origin != own.origin:
        return
    target = plan.application.target
    path = target.file or module_file(target.module, plan.paths)
    if path is None or path.name != "asgi.py":
        return
    sibling, _ = settings_default(path.with_name("wsgi.py"), plan.path)
    if sibling is None or sibling.value == own.value:
        return
    line = int(own.origin.rpartition(":")[2])
    module = context.sources.module(path)
    source = module.lines[line - 1].strip() if module else ""
    yield Finding(
        f"Nobody chose settings, so {own.value} is served ({own.origin}); "
        f"{sibling.origin} says {sibling.value}.",
        "Choose: djasgi serve --env production, or let both say the same.",
        Place(path, line, source),
    )


@check(
    "E004",
    "ASGI_APPLICATION leads nowhere",
    row=11,
    needs=Needs.SETTINGS,
    why="daphne's runserver and other launchers import what ASGI_APPLICATION names, and "
    "stop when it is not there. djasgi serves what it was told to, and so does not notice.",
    links=("https://channels.readthedocs.io/en/stable/installation.html",),
    example='ASGI_APPLICATION = "config.asgi.aplication"',
)
def missing_application(context: Context) -> Iterator[Finding]:
    from django.utils.module_loading import import_string

    dotted = getattr(context.settings, "ASGI_APPLICATION", None)
    if dotted is None:
        if "daphne" in context.settings.INSTALLED_APPS:
            yield Finding(
                "daphne is in INSTALLED_APPS, and ASGI_APPLICATION is not set: "
                "runserver stops.",
                'Set it, for example to "config.asgi.application".',
                context.setting("INSTALLED_APPS", "daphne"),
            )
        return
    if not isinstance(dotted, str):
        return
    module = dotted.rpartition(".")[0]
    try:
        import_string(dotted)
    except ImportError as error:
        if "." in dotted and not _is_about(error, module, dotted):
            return  # something that it imports: another fault
        yield Finding(
            f"ASGI_APPLICATION is {dotted!r}, which cannot be imported: {error}",
            "Name the application that your asgi.py defines.",
            context.setting("ASGI_APPLICATION", dotted),
        )
    except Exception:  # noqa: BLE001  # the user's code may raise anything
        return


def _is_about(error: ImportError, module: str, dotted: str) -> bool:
    name = error.name or ""
    return not name or name in {dotted, module} or module.startswith(f"{name}.")


@check(
    "E005",
    "Websockets are not served",
    row=12,
    why="ASGI_APPLICATION is a router with a branch for websockets, and what is served is "
    "another application, without one: every handshake is refused.",
    links=("https://channels.readthedocs.io/en/stable/topics/routing.html",),
    example='ASGI_APPLICATION = "config.routing.application"   # a ProtocolTypeRouter\n\n'
    "$ djasgi check config.asgi:application          # get_asgi_application()",
)
def without_websockets(context: Context) -> Iterator[Finding]:
    from django.core.handlers.asgi import ASGIHandler
    from django.utils.module_loading import import_string

    plan = context.plan
    dotted = getattr(context.settings, "ASGI_APPLICATION", None)
    if plan is None or not isinstance(dotted, str):
        return
    if not isinstance(context.application, ASGIHandler):
        return
    try:
        declared = import_string(dotted)
    except Exception:  # noqa: BLE001  # E004 says so
        return
    if speaks_websocket(declared):
        wanted = asgi_application_target(dotted)
        yield Finding(
            f"ASGI_APPLICATION, {dotted}, speaks websocket; what is served "
            f"({plan.application.origin}) does not.",
            f"Serve it: djasgi serve {wanted}",
            context.setting("ASGI_APPLICATION", dotted),
        )
