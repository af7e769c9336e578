"""Which settings module is planned, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from djasgi import discovery
from djasgi.configuration import Entry, EnvironmentTable
from djasgi.discovery import Application, Found, Root
from djasgi.environments import contradiction, settings_by_convention
from djasgi.errors import UsageError
from djasgi.values import Layers, Value


@dataclass(frozen=True, slots=True)
class SettingsChoice:
    """Which settings module is planned.

    `--settings`, the explicit environment, what is inherited, the base table, the
    application's own default, manage.py's: in this order.
    """

    named: Application | None
    layers: Layers
    environment: Value
    table: EnvironmentTable | None
    root: Root
    environ: Mapping[str, str]
    file_variables: Mapping[str, Entry]

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
        default = self.default()
        if default is None:
            given = self._inherited() or self.layers.layers[-1].get("settings")
            if given is None:
                return None
            default = Found(given.value, given.origin)
        roots = self.root.search_path
        siblings = discovery.settings_siblings(default.value, roots)
        if self.table and not siblings:
            return None
        try:
            module = settings_by_convention(
                self.environment.value, default.value, siblings
            )
        except UsageError:
            if self.table:
                return None
            raise
        return Entry(module, self.environment.origin) if module else None

    def _refuse_contradiction(self, planned: Entry | None, typed: Entry | None) -> None:
        says: dict[str, Entry] = dict(self.table.variables) if self.table else {}
        inherited = dict(self.environ)
        if planned is not None:
            says["DJANGO_SETTINGS_MODULE"] = planned
        if typed is not None:
            inherited.pop("DJANGO_SETTINGS_MODULE", None)
        if error := contradiction(self.environment.value, says, inherited):
            raise error
