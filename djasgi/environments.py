"""From the name of an environment to its settings module and its variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from djasgi.configuration import Entry
from djasgi.errors import UsageError, nearest

SYNONYMS: dict[str, tuple[str, ...]] = {
    "development": ("dev", "development", "local"),
    "production": ("prod", "production", "live"),
    "staging": ("stage", "staging"),
    "testing": ("test", "testing", "ci"),
}


def synonyms(name: str) -> tuple[str, ...]:
    """The usual names of the environment `name`, itself first."""
    for group in SYNONYMS.values():
        if name.lower() in group:
            return (name.lower(), *(other for other in group if other != name.lower()))
    return (name.lower(),)


def is_production(name: str) -> bool:
    """Whether `name` is production or a usual synonym of it."""
    return name.lower() in SYNONYMS["production"]


def looks_like_development(settings: str) -> bool:
    """Whether the last word of a settings module names a development environment."""
    words = settings.rpartition(".")[2].lower().split("_")
    return any(word in SYNONYMS["development"] for word in words)


def settings_by_convention(
    name: str, default: str | None, siblings: Sequence[str]
) -> str | None:
    """The settings module of the environment `name` among its siblings.

    The exact name comes first, then the usual synonyms. None when the project has a
    single settings module: the environment then only sets its variables. Raises
    UsageError when the name is not found among several, or is ambiguous.
    """
    others = [module for module in siblings if module != default]
    if not others:
        return default if default and _named(default) in synonyms(name) else None
    if exact := name_of(name, siblings):
        return exact
    candidates = {module: _named(module) for module in siblings}
    matching = [m for m, word in candidates.items() if word in synonyms(name)]
    if len(matching) == 1:
        return matching[0]
    listed = ", ".join(siblings)
    if matching:
        raise UsageError(
            f"The environment {name!r} is ambiguous: {' and '.join(matching)}.",
            hint=f"Name one: --env {candidates[matching[0]]}, or --settings "
            f"{matching[0]}",
        )
    guess = nearest(name.lower(), [*candidates.values()])
    raise UsageError(
        f"There are no settings for the environment {name!r}. There are: {listed}.",
        hint=f"Did you mean --env {guess}?"
        if guess
        else "Name one of them with --settings, or give the environment a table: "
        f'[tool.djasgi.env.{name}] settings = "…"',
    )


def name_of(environment: str, modules: Sequence[str]) -> str | None:
    """The settings module that has exactly the name of the environment."""
    return next((m for m in modules if _named(m) == environment.lower()), None)


def nearest_environment(name: str, known: Sequence[str]) -> str | None:
    """The known environment that `name` is a synonym or a misspelling of."""
    same = (other for other in known if other.lower() in synonyms(name))
    return next(same, None) or nearest(name, [*known])


def _named(module: str) -> str:
    """The environment that a settings module's own name speaks of."""
    word = module.rpartition(".")[2].lower()
    return word.removeprefix("settings_").removesuffix("_settings")


def _different(word: str, environment: str) -> bool:
    """Whether both are usual names, of different environments."""
    usual = [group for group in SYNONYMS.values() if word.lower() in group]
    other = [group for group in SYNONYMS.values() if environment.lower() in group]
    return bool(usual and other and usual != other)


def read_env_file(path: Path) -> dict[str, Entry]:
    """The `NAME=value` lines of an environment file, taken literally.

    No interpolation: a password may contain a dollar sign. Raises UsageError for a file
    that cannot be read and for a line that is no assignment.
    """
    from dotenv.parser import parse_stream

    try:
        with path.open(encoding="utf-8-sig") as stream:
            bindings = list(parse_stream(stream))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(
            f"The env file {path} cannot be read: {reason}.",
            hint="Check --env-file, DJASGI_ENV_FILE or env-file in the configuration.",
        ) from None
    entries = {}
    for binding in bindings:
        origin = f"{path.name}:{binding.original.line}"
        if binding.error or (binding.key and binding.value and "\0" in binding.value):
            raise UsageError(
                f"{origin}: this line is not NAME=value.", hint=f"Mend {path}."
            )
        if binding.key is not None and binding.value is not None:
            entries[binding.key] = Entry(binding.value, origin)
    return entries


def contradiction(
    environment: str, planned: Mapping[str, Entry], inherited: Mapping[str, str]
) -> UsageError | None:
    """The error for an inherited variable that says otherwise than the environment.

    Only the three variables that choose settings are looked at; for all others what
    is inherited simply wins.
    """
    for variable in ("DJANGO_SETTINGS_MODULE", "DJANGO_ENV", "DJANGO_CONFIGURATION"):
        has = inherited.get(variable)
        entry = planned.get(variable)
        if not has:
            continue
        if entry is not None and entry.value != has:
            wanted = f"{entry.value} ({entry.origin})"
        elif entry is None and _different(has, environment):
            wanted = f"the environment {environment!r}"
        else:
            continue
        remedy = "Pass --settings, or unset it" if "MODULE" in variable else "Unset it"
        return UsageError(
            f"{variable} is {has} (inherited), which contradicts {wanted}.",
            hint=f"{remedy}: env -u {variable} djasgi …",
        )
    return None
