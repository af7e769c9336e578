"""The launch plan: everything is decided here, and every value keeps its origin.

What comes after `resolve` takes the `LaunchPlan` and nothing else, so that `serve`,
`explain` and `manage` of the same plan cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from djasgi import discovery
from djasgi.addresses import addresses, refuse_idle_mode
from djasgi.configuration import (
    Configuration,
    Entry,
    EnvironmentTable,
    absolute,
    read_configuration,
    read_text,
    read_variables,
)
from djasgi.discovery import Application, Root, Target
from djasgi.environments import (
    is_production,
    looks_like_development,
    read_env_file,
)
from djasgi.errors import ProjectError, UsageError
from djasgi.frozen import Frozen
from djasgi.kinds import Bind
from djasgi.options import OPTIONS, Options
from djasgi.settings import SettingsChoice
from djasgi.values import Layers, Value


class LaunchPlan(Frozen):
    """What will run. Immutable; made by `resolve`."""

    command: str
    root: Root
    application: Application
    settings: Value | None
    environment: Value | None
    options: Options
    values: Mapping[str, Value]
    variables: Mapping[str, Value]
    paths: tuple[Path, ...]
    binds: tuple[Bind, ...]
    warnings: tuple[str, ...] = ()
    configuration: Path | None = None
    silence: tuple[str, ...] = ()  # the checks whose findings are known

    @property
    def path(self) -> Path:
        """The import root."""
        return self.root.path

    @property
    def production(self) -> bool:
        """Whether this is, by its name, the production environment."""
        return self.environment is not None and is_production(self.environment.value)


def resolve(
    command: str,
    given: Mapping[str, Any],
    environ: Mapping[str, str],
    cwd: Path,
    *,
    application: bool = True,
) -> LaunchPlan:
    """The plan for what was typed (`given`, by field name), configured and found.

    With `application` false (for `manage`) no application is looked for. Raises
    UsageError or ProjectError; executes none of the user's code.
    """
    typed = {
        name: Entry(absolute(OPTIONS[name], value, cwd), _typed_origin(name))
        for name, value in given.items()
    }
    variables, warnings = read_variables(environ, cwd)
    environment = Layers([typed, variables]).value("env")
    configuration = read_configuration(cwd)
    platform = _platform(environ, cwd)
    table = _table(configuration, environment)
    layers = _layers(typed, variables, platform, table, configuration)
    root = _root(layers, cwd, environ, application=application)
    if root.path != cwd:
        configuration = _configuration_of(root, cwd, configuration, layers)
        table = _table(configuration, environment)
        layers = _layers(typed, variables, platform, table, configuration)
    file_variables = _file_variables(layers)
    roots = root.search_path
    app = layers.value("app")
    named = _named_application(app.value, app.origin, roots) if app.asked else None
    chosen = SettingsChoice(
        named=named,
        layers=layers,
        environment=environment,
        tables=configuration.environments,
        root=root,
        environ=environ,
        file_variables=file_variables,
    )
    settings = chosen.before_application()
    found = named or (
        _find_application(root, settings.value if settings else chosen.known())
        if application
        else Application(None, "not needed", None)
    )
    settings = settings or chosen.after_application(found)
    if application and settings is None and found.target is None:
        raise ProjectError(
            f"No settings module was found for {root.path}.",
            hint="Name it: djasgi serve --settings mysite.settings",
        )
    values = {name: layers.value(name) for name in OPTIONS}
    values, binds = addresses(values, layers, environ)
    refuse_idle_mode(values, binds)
    _refuse_contradictions(values)
    options = Options(**{name: values[name].value for name in OPTIONS})
    plan = LaunchPlan(
        command=command,
        root=root,
        application=found,
        settings=settings,
        environment=environment if environment.value else None,
        options=options,
        values=values,
        variables=_variables(settings, table, file_variables, found, root, environ),
        paths=_import_paths(root, found),
        binds=binds,
        warnings=tuple(warnings),
        configuration=configuration.path,
        silence=configuration.silence,
    )
    _refuse_development_settings(plan)
    return plan


def _typed_origin(name: str) -> str:
    spec = OPTIONS[name]
    return "argument" if spec.argument else spec.flag


def _layers(
    typed: Mapping[str, Entry],
    variables: Mapping[str, Entry],
    platform: Mapping[str, Entry],
    table: EnvironmentTable | None,
    configuration: Configuration,
) -> Layers:
    written = [table.options if table else {}, configuration.options]
    return Layers([typed, variables, platform, *written])


def _root(
    layers: Layers, cwd: Path, environ: Mapping[str, str], *, application: bool
) -> Root:
    explicit = layers.value("project")
    app = layers.value("app")
    if app.asked and not explicit.asked:
        root = _root_of_application(app, cwd)
        if root is not None:
            return root
    found = discovery.find_root(cwd, explicit.value)
    if found is not None:
        return found.replaced(origin=explicit.origin) if explicit.asked else found
    settings = layers.value("settings").asked or environ.get("DJANGO_SETTINGS_MODULE")
    if app.asked or settings:
        return Root(cwd, "working directory", None)
    raise ProjectError(
        f"No Django project was found in {cwd} or near it: there is no manage.py.",
        hint="Go into the project's folder, or name it: --project DIR"
        + (", or djasgi serve module:application" if application else ""),
    )


WRITTEN = 3
"""The first of the layers that come from the configuration file."""


def _configuration_of(
    root: Root, cwd: Path, first: Configuration, layers: Layers
) -> Configuration:
    """The configuration of the project at `root`, which `first` may have led to."""
    found = read_configuration(root.path, cwd)
    leading = layers.value("project")
    rank = layers.rank("project")
    if rank is None or rank < WRITTEN:
        return found
    if found.path not in (None, first.path):
        raise UsageError(
            f"{leading.origin} leads to a project that {found.path} configures.",
            hint=f"Keep one of them: {first.path} would not count.",
        )
    return first


def _root_of_application(app: Value, cwd: Path) -> Root | None:
    """The root of an APP that is a file, or a module of the working directory."""
    target = _parsed(app.value, app.origin, cwd)
    if target.file is not None:
        root, origin = _package_root(target.file), app.origin
    elif discovery.module_file(target.module, [cwd]) is not None:
        root, origin = cwd, "working directory"
    else:
        return None
    manage = root / "manage.py"
    if manage.is_file():
        return Root(root, "manage.py", discovery.read_manage(manage))
    return Root(root, origin, None)


def _package_root(file: Path) -> Path:
    """The folder from which `file` is imported: above the package that it is in."""
    return next(
        (p for p in file.parents if not (p / "__init__.py").is_file()), file.parent
    )


def _as_module(target: Target, root: Path) -> Target:
    """A file in a package below `root` as the module that it is."""
    file = target.file
    if file is None or _package_root(file) != root or file.parent == root:
        return target
    parts = file.relative_to(root).with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return target.replaced(module=module, file=None)


def _table(configuration: Configuration, environment: Value) -> EnvironmentTable | None:
    tables = configuration.environments
    return tables.get(environment.value) if environment.value else None


def _platform(environ: Mapping[str, str], cwd: Path) -> dict[str, Entry]:
    """The variables that platforms set: PORT, WEB_CONCURRENCY and the like."""
    entries = {}
    for name, spec in OPTIONS.items():
        text = environ.get(spec.platform or "", "")
        if text and spec.platform not in ("DJANGO_SETTINGS_MODULE", "LISTEN_FDS"):
            entries[name] = read_text(spec, text, str(spec.platform), cwd)
    return entries


def _file_variables(layers: Layers) -> dict[str, Entry]:
    path = layers.value("env_file").value
    return read_env_file(path) if path else {}


def _find_application(root: Root, settings: str | None) -> Application:
    roots = root.search_path
    if settings:
        literal = discovery.literal(settings, "ASGI_APPLICATION", roots)
        if literal:
            return _named_application(
                asgi_application_target(literal.value), literal.origin, roots
            )
    return discovery.find_application(root.path, roots[1:], settings)


def asgi_application_target(dotted: str) -> str:
    """A value of the ASGI_APPLICATION setting, written as module:attribute."""
    if ":" in dotted or "." not in dotted:
        return dotted
    return ":".join(dotted.rsplit(".", 1))


def _parsed(text: str, origin: str, base: Path) -> discovery.Target:
    try:
        return discovery.parse_target(text, base)
    except UsageError as error:
        if origin == "argument":
            raise
        raise UsageError(f"{origin}: {error.message}", hint=error.hint) from None


def _named_application(text: str, origin: str, roots: Sequence[Path]) -> Application:
    target = _as_module(_parsed(text, origin, roots[0]), roots[0])
    path = target.file or discovery.module_file(target.module, roots)
    own = None
    if path is not None and path.is_file():
        own, _ = discovery.settings_default(path, roots[0])
    return Application(target, origin, own)


def _import_paths(root: Root, application: Application) -> tuple[Path, ...]:
    paths = [*root.search_path]
    if application.target and application.target.file:
        paths.insert(0, application.target.file.parent)
    return tuple(dict.fromkeys(paths))


def _variables(
    settings: Value | None,
    table: EnvironmentTable | None,
    file_variables: Mapping[str, Entry],
    application: Application,
    root: Root,
    environ: Mapping[str, str],
) -> dict[str, Value]:
    """What is set before anything of the project is imported.

    Inherited variables win over the env file, the env file over the table. What
    manage.py would set by default is needed where no asgi.py does it.
    """
    merged: dict[str, Entry] = {}
    if application.target is None and root.manage:
        defaults = root.manage.variables.items()
        merged = {name: Entry(found.value, found.origin) for name, found in defaults}
    merged |= {**(table.variables if table else {}), **file_variables}
    values = {
        name: Value(entry.value, entry.origin, secret=name in file_variables)
        for name, entry in merged.items()
        if name not in environ and name != "DJANGO_SETTINGS_MODULE"
    }
    if settings is not None:
        values["DJANGO_SETTINGS_MODULE"] = settings
    return values


def _refuse_contradictions(values: Mapping[str, Value]) -> None:
    trusted = values["forwarded_allow_ips"]
    without = values["proxy_headers"]
    if not without.value and trusted.origin == OPTIONS["forwarded_allow_ips"].flag:
        raise UsageError(
            f"{trusted.origin} and --no-proxy-headers contradict each other.",
            hint="Keep one: without proxy headers nobody needs to be trusted.",
        )


def _refuse_development_settings(plan: LaunchPlan) -> None:
    """Refuse production with settings that nobody chose and that look like development."""
    settings = plan.settings
    if not plan.production or settings is None or plan.environment is None:
        return
    own = [plan.application.settings, plan.root.manage and plan.root.manage.settings]
    from_default = settings.origin in {found.origin for found in own if found}
    if from_default and looks_like_development(settings.value):
        raise UsageError(
            f"The environment {plan.environment.value!r} would run with "
            f"{settings.value}, the default of {settings.origin}.",
            hint=f"Give it settings: --settings MODULE, or "
            f"[tool.djasgi.env.{plan.environment.value}] settings = …",
        )
