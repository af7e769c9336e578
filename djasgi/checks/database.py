"""Databases: connections that stay, pools, SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from djasgi.checks.base import Finding, Needs, check
from djasgi.checks.context import Context

PERSISTENT = (
    "https://docs.djangoproject.com/en/stable/ref/databases/#persistent-connections"
)


def _databases(context: Context) -> Iterator[tuple[str, dict[str, Any]]]:
    databases = context.settings.DATABASES or {}
    yield from databases.items()


@check(
    "E021",
    "Persistent connections leak on a native ASGI server",
    row=1,
    why="Django on ASGI runs each request's synchronous code on a thread of its own. A "
    "connection that is kept (CONN_MAX_AGE) belongs to that thread and is never used "
    "again: it stays open until it happens to be collected. 300 requests left up to 89 "
    "connections open, with two threads alive. djasgi keeps its threads, so this is said "
    "only where a file starts the native server.",
    links=(PERSISTENT,),
    example='DATABASES["default"]["CONN_MAX_AGE"] = 60\n'
    "# Procfile\nweb: uvicorn config.asgi:application --host 0.0.0.0 --port $PORT",
)
def persistent_connections(context: Context) -> Iterator[Finding]:
    launch = next(context.native(), None)
    if launch is None:
        return
    for alias, database in _databases(context):
        age = database.get("CONN_MAX_AGE", 0)
        if age == 0 or database.get("ENGINE", "").endswith("dummy"):
            continue
        setting = context.setting("DATABASES", "CONN_MAX_AGE")
        where = (
            f", {context.shown(setting.file)}:{setting.line}"
            if setting and setting.line
            else ""
        )
        yield Finding(
            f"{launch.server.name} serves a project that keeps database connections: "
            f"CONN_MAX_AGE of {alias!r} is {age}{where}.",
            "Start it with djasgi serve, or set CONN_MAX_AGE to 0 (and use a pool: "
            'OPTIONS = {"pool": True}, PostgreSQL).',
            context.launch_place(launch),
        )


@check(
    "E022",
    "A pool and persistent connections exclude each other",
    row=2,
    needs=Needs.SETTINGS,
    why="Django refuses the combination when the first query connects, not before: "
    'ImproperlyConfigured, "Pooling doesn\'t support persistent connections". The '
    "process starts, reports that it is ready, and every request that needs the database "
    "is a 500.",
    links=("https://docs.djangoproject.com/en/stable/ref/databases/#connection-pool",),
    example='DATABASES = {"default": {"CONN_MAX_AGE": 60, "OPTIONS": {"pool": True}}}',
)
def pool_and_persistent(context: Context) -> Iterator[Finding]:
    for alias, database in _databases(context):
        pool = (database.get("OPTIONS") or {}).get("pool")
        if pool and database.get("CONN_MAX_AGE", 0) != 0:
            yield Finding(
                f"The database {alias!r} has a pool, and CONN_MAX_AGE is "
                f"{database['CONN_MAX_AGE']}.",
                "Remove CONN_MAX_AGE: the pool keeps the connections.",
                context.setting("DATABASES", "CONN_MAX_AGE", "pool"),
            )


@check(
    "W023",
    "Several workers write to one SQLite file",
    row=35,
    why="In SQLite's default journal mode a writer keeps everybody else out, readers "
    'included, and whoever has waited for five seconds gets "database is locked". With '
    "the write-ahead log readers and one writer go on side by side.",
    links=(
        "https://docs.djangoproject.com/en/stable/ref/databases/#database-is-locked-errors",
        "https://www.sqlite.org/wal.html",
    ),
    example='DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", …}}\n\n'
    "$ djasgi check --workers 4",
)
def sqlite_workers(context: Context) -> Iterator[Finding]:
    several = context.several_workers
    if several is None:
        return
    for alias, database in _databases(context):
        options = database.get("OPTIONS") or {}
        if database.get("ENGINE") != "django.db.backends.sqlite3":
            continue
        name = str(database.get("NAME") or "")
        if "wal" in str(options.get("init_command", "")).lower():
            continue
        if options.get("timeout") or "memory" in name or _has_wal(name):
            continue
        yield Finding(
            f"{several[0]} share the SQLite database {alias!r}, without the write-ahead "
            "log or a longer timeout.",
            'Give it OPTIONS = {"init_command": "PRAGMA journal_mode=WAL", '
            '"timeout": 20, "transaction_mode": "IMMEDIATE"}.',
            context.setting("DATABASES", "django.db.backends.sqlite3"),
        )


WAL_VERSION = 2
"""Bytes 18 and 19 of a database with a write-ahead log (sqlite.org/fileformat.html)."""


def _has_wal(name: str) -> bool:
    try:
        with Path(name).open("rb") as file:
            return file.read(20)[18:20] == bytes((WAL_VERSION, WAL_VERSION))
    except (OSError, ValueError):
        return False
