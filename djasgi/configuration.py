"""`[tool.djasgi]` in pyproject.toml, or djasgi.toml, and the `DJASGI_*` variables.

Everything is validated here against the declarations in `options`, and every value
keeps the place where it was written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from djasgi.errors import UsageError, nearest
from djasgi.frozen import Frozen
from djasgi.kinds import Bind, FilePath, Repeated, complaint
from djasgi.options import OPTIONS, Spec
from djasgi.source import is_file
from djasgi.tree import up_to_repository

TABLE = ("tool", "djasgi")


class Entry(Frozen):
    """A value and where it was written."""

    value: Any
    origin: str


class EnvironmentTable(Frozen):
    """One `[tool.djasgi.env.NAME]`."""

    origin: str
    options: Mapping[str, Entry]
    variables: Mapping[str, Entry]


class Configuration(Frozen):
    """What the configuration file says; empty when there is none."""

    path: Path | None = None
    options: Mapping[str, Entry] = MappingProxyType({})
    environments: Mapping[str, EnvironmentTable] = MappingProxyType({})
    silence: tuple[str, ...] = ()  # ids of checks


def read_configuration(start: Path, cwd: Path | None = None) -> Configuration:
    """The nearest configuration file from `start` up to the repository root.

    Without a repository (a container has none) up to `cwd`, if `start` is below it;
    else only `start` itself is looked at. Raises UsageError for a file that does not
    parse, an unknown key, a wrong type, or two files in one directory.
    """
    for directory in up_to_repository(start, cwd):
        found = _in_directory(directory)
        if found is not None:
            return found
    return Configuration()


def read_variables(
    environ: Mapping[str, str], cwd: Path
) -> tuple[dict[str, Entry], list[str]]:
    """The options given as `DJASGI_*`, and a warning for each unknown name.

    An empty variable is one that is not set. Raises UsageError for an invalid value.
    """
    known = {spec.variable: name for name, spec in OPTIONS.items()}
    entries: dict[str, Entry] = {}
    warnings = []
    for variable in sorted(v for v in environ if v.startswith("DJASGI_")):
        if variable not in known:
            guess = nearest(variable, list(known))
            meant = f": did you mean {guess}?" if guess else "."
            warnings.append(f"{variable} is not a variable that djasgi knows{meant}")
        elif environ[variable]:
            name = known[variable]
            spec = OPTIONS[name]
            entries[name] = read_text(spec, environ[variable], variable, cwd)
    return entries, warnings


def read_text(spec: Spec, text: str, origin: str, base: Path) -> Entry:
    """`text` as a value of the option, or UsageError naming `origin`."""
    try:
        value = spec.kind.parse(text)
    except ValueError as error:
        raise UsageError(
            f"{origin}: {complaint(error, text)}.",
            hint=f"It is {spec.flag}: {spec.help}",
        ) from None
    return Entry(absolute(spec, value, base), origin)


def absolute(spec: Spec, value: Any, base: Path) -> Any:
    """`value` with its paths taken as relative to `base`."""
    if isinstance(spec.kind, FilePath):
        return base / value
    if isinstance(spec.kind, Repeated):
        return tuple(_absolute_bind(item, base) for item in value)
    if spec.name == "app" and value.partition(":")[0].endswith(".py"):
        return str(base / value)
    return value


def _absolute_bind(item: Any, base: Path) -> Any:
    if isinstance(item, Bind) and item.family == "unix":
        return Bind("unix", path=str(base / item.path))
    return item


def _in_directory(directory: Path) -> Configuration | None:
    found = []
    for name, table in (("pyproject.toml", TABLE), ("djasgi.toml", ())):
        path = directory / name
        if is_file(path):
            text = _text(path)
            if table and TABLE[-1] not in text:
                continue  # a pyproject.toml of others need not even be parsed
            settings: Any = _parse(path, text)
            for key in table:
                settings = settings.get(key) if isinstance(settings, dict) else None
            if settings is not None and (settings or not table):
                found.append((path, text, settings, table))
    if len(found) > 1:
        raise UsageError(
            f"Both {found[0][0]} and djasgi.toml configure djasgi.",
            hint="Keep one: move everything into it and delete the other.",
        )
    if not found:
        return None
    path, text, settings, table = found[0]
    return _Reader(path, text, table).read(settings)


def _text(path: Path) -> str:
    try:
        # TOML 1.1 and most editors allow the byte order mark that tomllib refuses.
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _invalid(path, error) from None
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}.",
            hint="Make it readable for the user that runs djasgi.",
        ) from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _invalid(path, error) from None
    except RecursionError:
        raise _invalid(path, "it is nested too deep") from None


def _invalid(path: Path, error: Exception | str) -> UsageError:
    return UsageError(
        f"{path} is not valid TOML: {error}.",
        hint="Mend the file; djasgi reads its own settings from it.",
    )


class _Reader:
    """Validates one file, with a line for every complaint."""

    def __init__(self, path: Path, text: str, table: tuple[str, ...]) -> None:
        self.path = path
        self.table = table
        self.lines = _line_numbers(text)

    def origin(self, *keys: str) -> str:
        full = self.table + keys
        inner = [line for key, line in self.lines.items() if key[: len(full)] == full]
        if inner:
            return f"{self.path.name}:{min(inner)}"
        while full:
            if full in self.lines:
                return f"{self.path.name}:{self.lines[full]}"
            full = full[:-1]
        return self.path.name

    def read(self, settings: object) -> Configuration:
        if not isinstance(settings, dict):
            raise self.error((), "expected a table")
        environments = settings.get("env", {})
        if not isinstance(environments, dict):
            raise self.error(
                ("env",), "expected tables such as [tool.djasgi.env.production]"
            )
        silence = settings.get("silence", [])
        if not isinstance(silence, list) or not all(
            isinstance(name, str) for name in silence
        ):
            raise self.error(("silence",), "expected a list of ids of checks")
        own = ("env", "silence")
        base = {key: value for key, value in settings.items() if key not in own}
        return Configuration(
            path=self.path,
            options=self.options(base, (), extra=own),
            environments={
                name: self.environment(name, table)
                for name, table in environments.items()
            },
            silence=tuple(silence),
        )

    def environment(self, name: str, table: object) -> EnvironmentTable:
        keys = ("env", name)
        if not isinstance(table, dict):
            raise self.error(keys, "expected a table")
        variables = table.get("variables", {})
        if not isinstance(variables, dict):
            raise self.error((*keys, "variables"), "expected a table")
        for variable, value in variables.items():
            if not isinstance(value, str) or "\0" in value:
                raise self.error((*keys, "variables", variable), "expected a string")
            if not re.fullmatch(r"[^=\s]+", variable) or not variable.isprintable():
                raise self.error(
                    (*keys, "variables", variable), "expected the name of a variable"
                )
        rest = {key: value for key, value in table.items() if key != "variables"}
        return EnvironmentTable(
            origin=self.origin(*keys),
            options=self.options(rest, keys, extra=("variables",)),
            variables={
                variable: Entry(value, self.origin(*keys, "variables", variable))
                for variable, value in variables.items()
            },
        )

    def options(
        self, table: Mapping[str, Any], keys: tuple[str, ...], extra: tuple[str, ...]
    ) -> dict[str, Entry]:
        known = {spec.name: name for name, spec in OPTIONS.items() if spec.toml}
        entries = {}
        for key, value in table.items():
            if key not in known:
                guess = nearest(key, [*known, *extra])
                raise UsageError(
                    f"{self.origin(*keys, key)}: {key!r} is not a key that djasgi "
                    f"knows.",
                    hint=self.key_hint(key, guess),
                )
            spec = OPTIONS[known[key]]
            try:
                accepted = spec.kind.accept(value)
            except ValueError as error:
                raise self.error((*keys, key), complaint(error, value)) from None
            entries[known[key]] = Entry(
                absolute(spec, accepted, self.path.parent), self.origin(*keys, key)
            )
        return entries

    def key_hint(self, key: str, guess: str | None) -> str:
        if key == TABLE[0] and not self.table:
            return f"In {self.path.name} the tables are written without tool.djasgi."
        if guess:
            return f"Did you mean {guess!r}?"
        return "The keys are the long options: djasgi serve --help"

    def error(self, keys: tuple[str, ...], complaint: str) -> UsageError:
        name = keys[-1] if keys else ".".join(self.table) or self.path.name
        spec = OPTIONS.get(name.replace("-", "_"))
        return UsageError(
            f"{self.origin(*keys)}: {name}: {complaint}.",
            hint=spec.help
            if spec and spec.toml
            else "See the README, section Environments.",
        )


_HEADER = re.compile(r"\s*\[{1,2}\s*(?P<keys>[^\]]+?)\s*\]{1,2}\s*(#.*)?$")
_KEY = re.compile(
    r"""\s*(?P<keys>(?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*="""
)
_PART = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")


def _line_numbers(text: str) -> dict[tuple[str, ...], int]:
    """Where each key of a TOML document stands: dotted path to line number.

    tomllib tells no positions. A key that is written in an unusual way is missing
    here, and its table's line is shown instead.
    """
    numbers: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _key_path(header["keys"])
            numbers.setdefault(table, number)
        elif key := _KEY.match(line):
            path = table + _key_path(key["keys"])
            numbers.setdefault(path, number)
            for inner in _KEY.finditer(line, key.end()) if "{" in line else ():
                numbers.setdefault(path + _key_path(inner["keys"]), number)
    return numbers


def _key_path(text: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(text))
