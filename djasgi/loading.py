"""Import the application in the plan's environment, and compare it with the plan."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from djasgi import compatibility
from djasgi.discovery import Target, defined_names, module_file
from djasgi.errors import ProjectError, UsageError, nearest
from djasgi.failures import (
    explained,
    is_or_contains,
    missing_module,
    missing_settings,
    overridden_settings,
    path_shown,
    place,
    settings_in_force,
)
from djasgi.frozen import Frozen
from djasgi.options import SERVERS
from djasgi.plan import LaunchPlan, asgi_application_target
from djasgi.source import shown

SUPERVISION = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "NOTIFY_SOCKET",
               "WATCHDOG_PID", "WATCHDOG_USEC")  # fmt: skip
"""What systemd tells djasgi and the project must not see (sd_notify(3))."""

DEFAULT_ATTRIBUTES = ("application", "app")

NEEDED = frozenset({*SERVERS, "asgiref", "autobahn", "django", "h11", "h2", "httptools",
                    "priority", "twisted", "uvloop", "websockets", "wsproto"})  # fmt: skip
"""Packages whose names are taken, whichever server was chosen."""


class Loaded(Frozen):
    """The application, ready to be served, and what is only known now."""

    application: Callable[..., Any]
    middleware: tuple[Callable[..., Any], ...]
    debug: bool
    logging: Mapping[str, Any] | None
    notes: tuple[str, ...]


def load(plan: LaunchPlan) -> Loaded:
    """The plan's application, imported and checked against the plan.

    Sets the environment variables and `sys.path`, imports, compares the settings in
    force with the planned ones, and resolves the URLconf, which Django would import at
    the first request. Raises ProjectError or UsageError.
    """
    enter(plan, os.environ)
    notes: list[str] = []
    with explained(plan):
        _put_handler_in_place(plan, notes)
        application = _import_application(plan, notes)
        settings = settings_in_force()
        if settings is not None:
            _compare_settings(plan, settings)
            _compare_application(plan, settings)
            _refuse_debug(plan, settings)
            _resolve_urls(settings)
        middleware = [_middleware(plan, name) for name in plan.options.middleware]
        return Loaded(
            application=application,
            middleware=tuple(middleware),
            debug=bool(getattr(settings, "DEBUG", False)),
            logging=getattr(settings, "LOGGING", None),
            notes=tuple(notes),
        )


def enter(plan: LaunchPlan, environ: MutableMapping[str, str]) -> None:
    """Set the plan's variables and import paths in this process."""
    for name in SUPERVISION:
        environ.pop(name, None)
    for name, value in plan.variables.items():
        environ[name] = str(value.value)
    for path in reversed(plan.paths):
        if str(path) not in sys.path:
            sys.path.insert(0, str(path))


def run_system_checks() -> None:
    """Run the project's system checks, as runserver does before it serves.

    Raises ProjectError with those that are errors and not silenced
    (https://docs.djangoproject.com/en/stable/topics/checks/).
    """
    if settings_in_force() is None:
        return
    from django.core import checks

    messages = checks.run_checks()
    errors = [m for m in messages if m.is_serious() and not m.is_silenced()]
    if errors:
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        raise ProjectError(
            f"The system checks found {count}: {' '.join(str(errors[0]).split())}",
            hint="See all of them: djasgi manage check",
            details="\n".join(map(str, errors)) if len(errors) > 1 else "",
        )


FOR_REQUESTS = (
    ("django.contrib.messages", "MESSAGE_STORAGE"),
    ("django.contrib.sessions", "SESSION_SERIALIZER"),
    ("django.contrib.auth", "AUTHENTICATION_BACKENDS"),
)
"""Applications, and the settings by which their middleware imports at a request."""


def import_for_requests() -> None:
    """Import what each worker would import by itself at its first request.

    Imported once, before the fork, it is shared. What cannot be imported is left to
    fail where it is needed, as without this.
    """
    settings = settings_in_force()
    if settings is None or not sys.modules["django.apps"].apps.ready:
        return
    from django.apps import apps

    for application, name in FOR_REQUESTS:
        paths = getattr(settings, name, ()) if apps.is_installed(application) else ()
        for path in (paths,) if isinstance(paths, str) else paths:
            with suppress(Exception):
                importlib.import_module(path.rpartition(".")[0])


def close_connections() -> None:
    """Close the database connections that the import has opened (a fork shares them)."""
    database = sys.modules.get("django.db")
    if database is not None and settings_in_force() is not None:
        database.connections.close_all()


@contextmanager
def without_project(plan: LaunchPlan) -> Iterator[None]:
    """Import what is not the project's, whatever names the project has in its root."""
    project = {str(path) for path in plan.paths}
    before = [*sys.path]
    sys.path[:] = [path for path in before if path not in project]
    try:
        yield
    finally:
        sys.path[:] = before


def _put_handler_in_place(plan: LaunchPlan, notes: list[str]) -> None:
    """Let `get_asgi_application` make the plan's handler, wherever it is called."""
    chosen = compatibility.handler(plan)
    if chosen.reason:
        notes.append(chosen.reason)
    if chosen.name == "djasgi":
        import django.core.asgi

        from djasgi.handler import ASGIHandler

        django.core.asgi.ASGIHandler = ASGIHandler  # type: ignore[attr-defined]


def _import_application(plan: LaunchPlan, notes: list[str]) -> Callable[..., Any]:
    target = plan.application.target
    if settings := plan.settings:
        if not all(part.isidentifier() for part in settings.value.split(".")):
            raise missing_settings(plan, settings.value, settings.origin)
        _refuse_shadowed(plan, settings.value)
    if target is None:
        synthesised: Callable[..., Any] = _synthesise()
        return synthesised
    if not target.file:
        _refuse_shadowed(plan, target.module)
    module = _import_module(plan, target, notes)
    attribute = _attribute(plan, target, module)
    application = _get(module, attribute)
    place = path_shown(target.file, plan.path) if target.file else target.module
    name = f"{place}:{attribute}"
    if target.call or plan.options.factory:
        application = _call_factory(name, application)
        name = f"{name}()"
    return _checked(name, application)


def _synthesise() -> Callable[..., Any]:
    if os.environ.get("DJANGO_CONFIGURATION") and importlib.util.find_spec(
        "configurations"
    ):
        importlib.import_module("configurations").setup()
    from django.core.asgi import get_asgi_application

    return get_asgi_application()


def _import_module(plan: LaunchPlan, target: Target, notes: list[str]) -> ModuleType:
    try:
        return _import(target)
    except Exception as error:
        if type(error).__name__ != "AppRegistryNotReady":
            raise
        where = place(error, plan) or target.module
    # The module imports models before get_asgi_application(): with Django set up
    # first, the same import works.
    import django

    django.setup()
    module = _import(target)
    notes.append(
        f"{where} uses models before Django is set up: djasgi set it up first; "
        f"another server would stop here. Call get_asgi_application() before."
    )
    return module


def _import(target: Target) -> ModuleType:
    if target.file is None:
        return importlib.import_module(target.module)
    name = target.file.stem
    if existing := sys.modules.get(name):
        return existing
    spec = importlib.util.spec_from_file_location(name, target.file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{target.file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _refuse_shadowed(plan: LaunchPlan, module: str) -> None:
    """Refuse a project's module that has the name of a package that djasgi needs.

    Those are what is imported already, and those that one of the servers would import.
    """
    top = module.partition(".")[0]
    own = module_file(top, plan.paths)
    loaded = sys.modules.get(top)
    if own is None or (loaded is None and top not in NEEDED):
        return
    where = getattr(loaded, "__file__", None) or ""
    if own.resolve() != Path(where).resolve():
        raise ProjectError(
            f"{path_shown(own, plan.path)} has the name of the package {top}, which "
            "djasgi itself needs.",
            hint="Rename it: two modules of one name cannot both be imported.",
        )


def _attribute(plan: LaunchPlan, target: Target, module: ModuleType) -> str:
    """The attribute to serve: what was named, else `application`, else `app`."""
    file = path_shown(Path(module.__file__ or target.module), plan.path)
    hint = partial(_attribute_hint, target, module)
    if target.attribute is None:
        for name in DEFAULT_ATTRIBUTES:
            if hasattr(module, name):
                return name
        raise ProjectError(
            f'{file} has neither "application" nor "app".', hint=hint("application")
        )
    try:
        _get(module, target.attribute)
    except AttributeError:
        raise ProjectError(
            f'{file} has no "{target.attribute}".', hint=hint(target.attribute)
        ) from None
    return target.attribute


def _get(module: ModuleType, attribute: str) -> Any:
    value: Any = module
    for name in attribute.split("."):
        value = getattr(value, name)
    return value


def _attribute_hint(target: Target, module: ModuleType, wanted: str) -> str:
    names = _callables(module)
    guess = nearest(wanted, names) or next(
        (name for name in DEFAULT_ATTRIBUTES if name in names), None
    )
    place = path_shown(target.file, Path.cwd()) if target.file else target.module
    call = "()" if target.call else ""
    if not guess and (inner := _inner_module(module, wanted)):
        return f"It has a module {inner!r}:  djasgi serve {place}.{inner}"
    command = shlex.join(("djasgi", "serve", f"{place}:{guess or 'NAME'}{call}"))
    if guess:
        return f'It defines "{guess}":  {command}'
    return f"Name the application in it:  {command}"


def _inner_module(package: ModuleType, wanted: str) -> str | None:
    """The module of a package that may hold the application: `wanted`, else asgi."""
    folders = [Path(folder) for folder in getattr(package, "__path__", ())]
    found = (name for name in (wanted, "asgi") if module_file(name, folders))
    return next(found, None)


def _callables(module: ModuleType) -> list[str]:
    """The names of what a module itself defines and what can be called."""
    names = defined_names(Path(module.__file__)) if module.__file__ else []
    return [name for name in names if callable(getattr(module, name, None))]


def _call_factory(name: str, factory: Any) -> Any:
    if not callable(factory):
        raise ProjectError(
            f"{name} is not a function, so it cannot be called for the application.",
            hint="Leave out --factory, or the parentheses.",
        )
    try:
        return factory()
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:
            raise ProjectError(
                f"{name}() cannot be called without arguments: {error}.",
                hint="A factory takes none. If it is the application itself, leave out "
                "--factory, or the parentheses.",
            ) from None
        raise


def _checked(name: str, application: Any) -> Callable[..., Any]:
    if inspect.iscoroutine(application):
        application.close()
        raise ProjectError(
            f"{name} is asynchronous: a factory is called before there is a loop.",
            hint="Make it a plain function, and await in the application's lifespan.",
        )
    if not callable(application):
        raise ProjectError(
            f"{name} is {_kind(application)}, not an ASGI application.",
            hint="Name the application itself, for example config.asgi:application",
        )
    count = _parameters_refused(application)
    if count is not None:
        wsgi = "a WSGI application" if count == WSGI else "not an ASGI application"
        raise ProjectError(
            f"{name} is {wsgi}: it cannot be called with scope, receive and send.",
            hint="Use django.core.asgi.get_asgi_application(), or leave APP out."
            if count == WSGI
            else "Name the application itself, for example config.asgi:application",
        )
    return application  # type: ignore[no-any-return]  # callable() was asked


def _kind(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


WSGI = 2
"""Parameters of a WSGI application: environ and start_response (PEP 3333)."""


def _parameters_refused(application: Callable[..., Any]) -> int | None:
    """The number of parameters of what cannot be called with three, as ASGI does."""
    try:
        signature = inspect.signature(application, follow_wrapped=False)
    except (TypeError, ValueError):
        return None  # written in C: it cannot be told
    try:
        signature.bind({}, None, None)
    except TypeError:
        return len(signature.parameters)
    return None


def _compare_settings(plan: LaunchPlan, settings: Any) -> None:
    # settings.configure() leaves no module: a single-file project settles its own.
    actual = getattr(settings._wrapped, "SETTINGS_MODULE", None)  # noqa: SLF001
    planned = plan.settings
    if actual and planned is not None and actual != planned.value:
        raise overridden_settings(plan, actual)


def _compare_application(plan: LaunchPlan, settings: Any) -> None:
    """A discovered application that is not the one of the settings is an error.

    One that was named, by argument, variable or configuration, is what was asked for.
    """
    dotted = getattr(settings, "ASGI_APPLICATION", None)
    target = plan.application.target
    if not isinstance(dotted, str) or plan.values["app"].asked:
        return
    wanted = asgi_application_target(dotted)
    found = f"{target.module}:{target.attribute or 'application'}" if target else ""
    if wanted == found:
        return
    raise ProjectError(
        f"ASGI_APPLICATION is {shown(dotted)}, but {found or 'no asgi.py'} was found "
        f"({plan.application.origin}).",
        hint=f"Name the one to serve:  djasgi serve {shown(wanted)}",
    )


def _refuse_debug(plan: LaunchPlan, settings: Any) -> None:
    if plan.command == "serve" and plan.production and settings.DEBUG:
        environment = plan.environment.value if plan.environment else ""
        module = plan.settings.value if plan.settings else "the settings"
        raise UsageError(
            f"DEBUG is on in {module}: refused for the environment {environment!r}.",
            hint="Set DEBUG = False there, or serve another environment.",
        )


def _resolve_urls(settings: Any) -> None:
    """Import the URLconf now: a worker whose views do not import is not ready."""
    if getattr(settings, "ROOT_URLCONF", None):
        from django.urls import get_resolver

        get_resolver().url_patterns  # noqa: B018  # resolving is the purpose


def _middleware(plan: LaunchPlan, name: str) -> Callable[..., Any]:
    """The middleware `name`, as a function that explains what goes wrong in it."""
    origin = plan.values["middleware"].origin
    use = f" for the middleware {shown(name)} ({origin})"
    module, _, attribute = name.rpartition(":" if ":" in name else ".")
    _refuse_shadowed(plan, module)
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and is_or_contains(error.name, module):
            suffix = f":{attribute}"
            raise missing_module(plan, module, use, suffix) from None
        raise
    try:
        middleware = _get(imported, attribute)
    except AttributeError:
        guess = nearest(attribute, _callables(imported))
        raise ProjectError(
            f'{module} has no "{attribute}"{use}.',
            hint=f'It defines "{guess}".' if guess else "Name what it defines.",
        ) from None
    return partial(_wrapped, plan, name, middleware)


def _wrapped(plan: LaunchPlan, name: str, middleware: Any, app: Any) -> Any:
    """`app` inside one middleware."""
    with explained(plan):
        try:
            application = middleware(app)
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                raise ProjectError(
                    f"The middleware {name} cannot be called with the application: "
                    f"{error}.",
                    hint="ASGI middleware takes the application and returns another.",
                ) from None
            raise
        if not callable(application):
            raise ProjectError(
                f"The middleware {name} returned {_kind(application)}, not an "
                "application.",
                hint="ASGI middleware takes the application and returns another.",
            )
        return application
