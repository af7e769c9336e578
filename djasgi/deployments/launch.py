"""One server that a file starts, and everything that was found in a repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from djasgi.deployments import commands
from djasgi.deployments.commands import Server


@dataclass(frozen=True, slots=True)
class Launch:
    """One server that a file starts."""

    kind: (
        str  # "Procfile", "Dockerfile", "compose", "systemd", "fly.toml", "render.yaml"
    )
    file: Path
    line: int
    source: str  # the line as it stands there
    server: Server
    environ: Mapping[str, str] = field(default_factory=dict)  # what the file sets
    environ_known: bool = True  # False: an env_file or the like may set more
    shell: bool = False  # run by a shell that stays in between
    facts: Mapping[str, str] = field(default_factory=dict)
    through: tuple[tuple[Path, int], ...] = ()  # the files that call this script

    @property
    def native(self) -> bool:
        """Whether a server is started directly, without djasgi."""
        return self.server.name not in ("djasgi", "runserver")

    @property
    def asgi(self) -> bool:
        """Whether that server speaks ASGI to the application."""
        if self.server.name == "gunicorn":
            worker = self.server.value("-k", "--worker-class") or ""
            return "asgi" in worker or "uvicorn" in worker.lower()
        return self.server.name in commands.ASGI_SERVERS

    @property
    def workers(self) -> int | None:
        """The worker processes asked for; None if that is not written there."""
        flags = ("--workers", "-w")
        number = self.server.number(*flags)
        if number is None and self.server.value(*flags) is None:
            variable = self.variables.get("WEB_CONCURRENCY", "")
            number = float(variable) if variable.isdecimal() else None
        return int(number) if number is not None else None

    @property
    def variables(self) -> dict[str, str]:
        return {**self.environ, **self.server.environ}


@dataclass(frozen=True, slots=True)
class Deployments:
    """Everything that was found, and what could not be read."""

    launches: tuple[Launch, ...] = ()
    files: tuple[Path, ...] = ()
    texts: Mapping[Path, str] = field(default_factory=dict)
    skipped: tuple[tuple[Path, str], ...] = ()
