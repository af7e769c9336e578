"""A throw-away PostgreSQL server (Debian: apt-get install postgresql)."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString, Self

import psycopg
from psycopg.sql import SQL, Identifier

from tests.support.leased import ROWS, SCHEMA

SETTINGS = (
    "listen_addresses=",
    "max_connections=100",
    "fsync=off",
    "log_line_prefix=%d:",
    # Says of each connection that it was not closed but dropped.
    "log_min_messages=debug1",
)


def _programs() -> Path | None:
    """Where initdb and pg_ctl are: Debian does not put them on the PATH."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda path: int(path.parts[-3]),
    )
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


PROGRAMS = _programs()
MISSING = "PostgreSQL is not installed (Debian: apt-get install postgresql)"


class Postgres:
    """One server, reached over a unix socket in its own directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "log"
        # It refuses to run as root.
        self._prefix = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        if self._prefix:
            account = pwd.getpwnam("postgres")
            os.chown(directory, account.pw_uid, account.pw_gid)

    def _run(self, program: str, *arguments: str) -> None:
        assert PROGRAMS is not None
        # Not a pipe: the server would keep it open.
        output = self.directory / "output"
        with output.open("ab") as stdout:
            done = subprocess.run(
                [*self._prefix, PROGRAMS / program, "-D", self.data, *arguments],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.STDOUT,
                check=False,
            )
        assert done.returncode == 0, output.read_text()

    def __enter__(self) -> Self:
        self._run("initdb", "-A", "trust", "-U", "postgres", "--no-sync")
        options = [f"-c {setting}" for setting in SETTINGS]
        options.append(f"-c unix_socket_directories={self.directory}")
        self._start = ("-w", "-l", str(self.log), "-o", " ".join(options))
        self._run("pg_ctl", "start", *self._start)
        return self

    def __exit__(self, *exception: object) -> None:
        self._run("pg_ctl", "stop", "-m", "immediate")

    def restart(self) -> None:
        """Stop it, with its connections, and start it again."""
        self._run("pg_ctl", "restart", "-m", "fast", *self._start)

    def execute(
        self, query: LiteralString, *values: object, database: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """The rows of a statement, on a connection of its own."""
        with psycopg.connect(
            host=str(self.directory),
            user="postgres",
            dbname=database,
            autocommit=True,
            application_name="test",
        ) as connection:
            cursor = connection.execute(query, values or None)
            return cursor.fetchall() if cursor.description else []

    def clients(self, database: str) -> list[int]:
        """The processes that serve connections to `database`, without the test's own."""
        query: LiteralString = (
            "SELECT pid FROM pg_stat_activity "
            "WHERE application_name <> 'test' AND datname = %s"
        )
        return [pid for (pid,) in self.execute(query, database)]

    def create(self, name: str) -> dict[str, Any]:
        """A database for the project `leased`; Django's settings for it."""
        with psycopg.connect(
            host=str(self.directory), user="postgres", autocommit=True
        ) as connection:
            statement = SQL("CREATE DATABASE {}").format(Identifier(name))
            connection.execute(statement)
        self.execute(SCHEMA, database=name)
        self.execute(
            "INSERT INTO leased_row SELECT n, n FROM generate_series(0, %s) n",
            ROWS - 1,
            database=name,
        )
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": name,
            "USER": "postgres",
            "HOST": str(self.directory),
        }


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server of which nothing is left afterwards."""
    # Not below pytest's folder, which is closed to the other account; and short, for
    # the path of the socket.
    with (
        tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as directory,
        Postgres(Path(directory)) as server,
    ):
        yield server
