"""The database connections of threads: counted, and closed when a thread ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from djasgi.threads.database import OpenConnections, close_connections
from tests.support.process import TIMEOUT

ROOT = Path(__file__).parent.parent.parent

SETUP = """
import asyncio, logging, sys
from concurrent.futures import ThreadPoolExecutor
import django
from django.conf import settings

settings.configure(DATABASES={
    alias: {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{sys.argv[1]}/{alias}"}
    for alias in ("default", "other")
})
django.setup()
from django.db import connections
from djasgi.threads import Pool
from djasgi.threads.database import OpenConnections, close_connections

opened = OpenConnections()
opened.watch()
opened.watch()

def use(alias="default"):
    connections[alias].ensure_connection()
    return opened.count()
"""


def script(code: str, folder: Path) -> str:
    """The output of a program in which Django is set up."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error::DeprecationWarning",
            "-c",
            SETUP + code,
            str(folder),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_open_connections_of_all_threads_are_counted(tmp_path: Path) -> None:
    """Those of another thread cannot be seen through `django.db.connections`."""
    code = """
executor = ThreadPoolExecutor(1)

async def elsewhere(function, *arguments):
    await asyncio.get_running_loop().run_in_executor(executor, function, *arguments)

async def main():
    pool = Pool(2, 2)
    leases = [pool.lease() for _ in range(2)]
    for lease in leases:
        await asyncio.wrap_future(lease.submit(use))
    await asyncio.wrap_future(leases[0].submit(use, "other"))
    print(opened.count())
    await asyncio.wrap_future(leases[0].submit(lambda: connections["other"].close()))
    print(opened.count())
    await elsewhere(use)
    print(opened.count())
    pool.stop()
    print(pool.join(10), opened.count())
    opened.unwatch()
    await elsewhere(use, "other")
    print(opened.count())
    await elsewhere(close_connections)
    print(opened.count())

asyncio.run(main())
"""
    assert script(code, tmp_path).split() == ["3", "2", "3", "True", "1", "1", "0"]


def test_a_connection_that_cannot_be_closed_is_logged_and_the_others_are(
    tmp_path: Path,
) -> None:
    code = """
use(), use("other")
def fail(): raise ValueError("meant to fail")
connections["default"].close = fail
close_connections()
print(connections["other"].connection)
"""
    output = script(code, tmp_path)
    assert "None" in output
    assert "could not be closed" in output
    assert "meant to fail" in output


def test_a_thread_that_used_no_database_opens_nothing(tmp_path: Path) -> None:
    assert script("close_connections(); print(opened.count())", tmp_path) == "0\n"


def test_without_django_nothing_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "django.db", raising=False)
    opened = OpenConnections()
    opened.watch()
    close_connections()

    assert opened.count() == 0
    assert "django.db" not in sys.modules
