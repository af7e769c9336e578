"""The same thing asked of djasgi and of the servers' own commands."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

SERVERS = ("uvicorn", "hypercorn", "daphne")
REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = Path(__file__).resolve().parent / "project"
DJANGO = "bench.asgi:application"
HELLO = "hello:application"

# djasgi's defaults that the commands do not share; daphne has no keep-alive.
SAME = {
    "uvicorn": ["--no-server-header", "--timeout-keep-alive=95", "--backlog=2048"],
    "hypercorn": ["--worker-class=uvloop", "--keep-alive=95", "--backlog=2048"],
    "daphne": ["--no-server-name"],
}
ACCESS_LOG = {
    ("uvicorn", True): ["--access-log"],
    ("uvicorn", False): ["--no-access-log"],
    ("hypercorn", True): ["--access-logfile=-"],
    ("hypercorn", False): [],
    ("daphne", True): ["--access-log=-"],
    ("daphne", False): ["--verbosity=0"],
}


@dataclass(frozen=True, slots=True)
class Command:
    """A way to serve one application of the project."""

    server: str
    native: bool
    application: str = DJANGO
    workers: int = 1
    access_log: bool = False
    options: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()

    def argv(self, port: int) -> list[str]:
        build = self._native if self.native else self._djasgi
        return [sys.executable, "-m", *build(port)]

    def __str__(self) -> str:
        """As it is typed in tests/bench/project."""
        return shlex.join(["python", *self.argv(8000)[1:]])

    def _djasgi(self, port: int) -> list[str]:
        access_log = "--access-log" if self.access_log else "--no-access-log"
        options = [f"--server={self.server}", f"--port={port}", access_log]
        if self.workers != 1:
            options.append(f"--workers={self.workers}")
        return ["djasgi", "serve", self.application, *options, *self.options]

    def _native(self, port: int) -> list[str]:
        options = [*SAME[self.server], *ACCESS_LOG[self.server, self.access_log]]
        if self.server == "hypercorn":
            options.append(f"--bind=127.0.0.1:{port}")
        else:
            options.append(f"--port={port}")
        if self.workers != 1:
            options.append(f"--workers={self.workers}")
        return [self.server, *options, *self.options, self.application]


WSGI = "bench.wsgi:application"


@dataclass(frozen=True, slots=True)
class Gunicorn:
    """The project on WSGI, one worker: `threads` 0 is the sync worker."""

    threads: int = 0
    variables: tuple[tuple[str, str], ...] = ()
    server: str = "gunicorn"

    def argv(self, port: int) -> list[str]:
        options = [f"--bind=127.0.0.1:{port}", "--workers=1", "--log-level=warning"]
        if self.threads:
            options += ["--worker-class=gthread", f"--threads={self.threads}"]
        return [sys.executable, "-m", "gunicorn", *options, WSGI]

    def __str__(self) -> str:
        """As it is typed in tests/bench/project."""
        return shlex.join(["python", *self.argv(8000)[1:]])


def environment() -> dict[str, str]:
    """What both sides run in: this checkout, and no option from elsewhere."""
    foreign = ("DJASGI_", "UVICORN_", "DJANGO_")
    platform = ("PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "LISTEN_FDS")
    # What is compiled is kept, as it is once a package is installed.
    python = ("PYTHONDONTWRITEBYTECODE",)
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) and name not in platform + python
    }
    return {**kept, "PYTHONPATH": str(REPOSITORY)}
