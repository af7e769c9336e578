"""Which settings module is planned, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from djasgi import discovery
from djasgi.configuration import Entry, EnvironmentTable
from djasgi.discovery import Application, Found, Root
from djasgi.environments import (
    contradiction,
    name_of,
    nearest_environment,
    settings_by_convention,
)
from djasgi.errors import UsageError
from djasgi.frozen import Frozen
from djasgi.values import Layers, Value


class SettingsChoice(Frozen):
    """Which settings module is planned.

    `--settings`, the explicit environment, what is inherited, the base table, the
    application's own default, manage.py's: in this order.
    """

    named: Application | None
    layers: Layers
    environment: Value
    tables: Mapping[str, EnvironmentTable]
    root: Root
    environ: Mapping[str, str]
    file_variables: Mapping[str, Entry]

    @property
    def table(self) -> EnvironmentTable | None:
        """The table of the environment."""
        return self.tables.get(self.environment.value)

    def default(self) -> Found | None:
        """The project's own default: manage.py's, else that of the given APP."""
        if self.root.manage and self.root.manage.settings:
            return self.root.manage.settings
        return self.named.settings if self.named else None

    def known(self) -> str | None:
        """The settings by which an application is recognised as the project's."""
        default = self.default()
        return default.value if default else None

    def before_application(self) -> Value | None:
        """The settings, unless it is the application's or manage.py's to say."""
        typed = next(
            (
                layer["settings"]
                for layer in self.layers.layers[:2]
                if "settings" in layer
            ),
            None,
        )
        explicit = typed or (self._of_environment() if self.environment.value else None)
        if self.environment.value:
            self._refuse_other_table()
            self._refuse_contradiction(explicit, typed)
        candidates = [
            explicit,
            self._inherited(),
            self.file_variables.get("DJANGO_SETTINGS_MODULE"),
            self.layers.layers[-1].get("settings"),
        ]
        return self._first([*candidates, self._manage_entry()], only=candidates)

    def after_application(self, application: Application) -> Value | None:
        """The application module's own default, else manage.py's."""
        own = application.settings
        entry = Entry(own.value, own.origin) if own else None
        return self._first([entry, self._manage_entry()])

    def _first(
        self, entries: Sequence[Entry | None], only: Sequence[Entry | None] = ()
    ) -> Value | None:
        present = [entry for entry in entries if entry is not None]
        if not present or (only and not any(only)):
            return None
        first = present[0]
        others = [e for e in present[1:] if e.value != first.value]
        return Value(
            first.value, first.origin, tuple((e.value, e.origin) for e in others)
        )

    def _manage_entry(self) -> Entry | None:
        default = self.default()
        return Entry(default.value, default.origin) if default else None

    def _inherited(self) -> Entry | None:
        inherited = self.environ.get("DJANGO_SETTINGS_MODULE")
        return Entry(inherited, "DJANGO_SETTINGS_MODULE") if inherited else None

    def _of_environment(self) -> Entry | None:
        if self.table:
            own = self.table.options.get("settings") or self.table.variables.get(
                "DJANGO_SETTINGS_MODULE"
            )
            if own:
                return own
        default, siblings = self._siblings()
        if default is None or (self.table and not siblings):
            return None
        try:
            module = settings_by_convention(self.environment.value, default, siblings)
        except UsageError:
            if self.table:
                return None
            raise
        return Entry(module, self.environment.origin) if module else None

    def _siblings(self) -> tuple[str | None, list[str]]:
        """The project's default settings, and the settings modules beside them."""
        default: Found | Entry | None = self.default()
        default = default or self._inherited()
        default = default or self.layers.layers[-1].get("settings")
        if default is None:
            return None, []
        roots = self.root.search_path
        return default.value, discovery.settings_siblings(default.value, roots)

    def _refuse_other_table(self) -> None:
        """Refuse a name that only nearly is that of a table: it would not be used."""
        name = self.environment.value
        if self.table or not self.tables:
            return
        table = nearest_environment(name, [*self.tables])
        if table is None:
            return
        if table.lower() != name.lower() and name_of(name, self._siblings()[1]):
            return
        raise UsageError(
            f"The environment {name!r} has no table ({self.environment.origin}), "
            f"{table!r} has ({self.tables[table].origin}).",
            hint=f"Did you mean --env {table}? Else give {name!r} a table of its own.",
        )

    def _refuse_contradiction(self, planned: Entry | None, typed: Entry | None) -> None:
        says: dict[str, Entry] = dict(self.table.variables) if self.table else {}
        inherited = dict(self.environ)
        if planned is not None:
            says["DJANGO_SETTINGS_MODULE"] = planned
        if typed is not None:
            inherited.pop("DJANGO_SETTINGS_MODULE", None)
        if error := contradiction(self.environment.value, says, inherited):
            raise error
