"""Django's own live-server tests against the three servers: the results are the same.

    python -m tests.live.run [--series 5.2 ...] [--server uvicorn ...]
                             [--python PYTHON] [LABEL ...]

Each label runs with Django's own server and with each of the three in its place, with a
database in memory, whose connection all threads share, and with one in a file, where
each thread has its own connection and keeps it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.django.run import ROOT, SERIES, interpreter, prepare

SERVERS = ("uvicorn", "hypercorn", "daphne")
DATABASES = ("memory", "file")

LABELS = (
    "servers.tests",
    "servers.test_liveserverthread",
    "staticfiles_tests.test_liveserver",
    "file_storage.tests.FileLikeObjectTestCase",
    "admin_scripts.tests.StartProject",
)
"""All that start a live server and need no browser."""

LEFT_OUT = {
    "servers.test_basehttp": "parts of Django's WSGI server, called without a server",
    "SeleniumTestCase": "its live server is asked by a browser, which is not required here",
}
"""What else there is about live servers."""

VIEWS = "servers.tests.LiveServerViews"

NOT_APPLICABLE = {
    f"{VIEWS}.test_environ": "its view shows request.environ, which is WSGI's",
    f"{VIEWS}.test_closes_connection_without_content_length": (
        "Django's server cannot send chunks, and so closes; these can, and stay open"
    ),
    f"{VIEWS}.test_keep_alive_connection_clears_previous_request_data": (
        "Django's server stays open after a request that says Connection: close; "
        "these close, as RFC 9112, section 9.6, asks"
    ),
    f"{VIEWS}.test_keep_alive_on_connection_with_content_length": (
        "as the one before, for its second request"
    ),
}
"""Tests of what only Django's own server does: they must fail."""

OF_THEIR_OWN = {
    "servers.tests.LiveServerTestCloseConnectionTest.test_closes_connections": (
        "it brings a ThreadedWSGIServer of its own, which closes connections after each "
        "request; leased threads keep them"
    ),
    "servers.tests.SingleThreadLiveServerViews."
    "test_closes_connection_with_content_length": "it brings a WSGIServer of its own",
}
"""Tests that make another server than the one of the thread: nothing is proved."""


@dataclass(frozen=True)
class Result:
    """The outcome of each test, and what djasgi has served meanwhile."""

    outcomes: dict[str, str]
    servers: int
    requests: int


def install(python: Path) -> None:
    """What djasgi needs beside Django, whose source is found first in any case."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [line for line in project["dependencies"] if not line.startswith("django")]
    pip: list[str | Path] = [
        python,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
    ]
    subprocess.run([*pip, "install", *needed], check=True)


def run(
    python: Path, source: Path, server: str, database: str, labels: list[str]
) -> Result:
    """The labels in a process of its own."""
    name = f"live-{server}-{database}"
    result, log = source.parent / f"{name}.json", source.parent / f"{name}.log"
    result.unlink(missing_ok=True)
    command: list[str | Path] = [python, "-m", "tests.live.suite"]
    command += [source, result, server, database]
    with log.open("w") as output:
        subprocess.run(
            [*command, *labels],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if not result.exists():
        raise SystemExit(f"The suite did not run: {log}")
    data: dict[str, Any] = json.loads(result.read_text())
    return Result(data["results"], **data["served"])


def compare(django: Result, djasgi: Result) -> list[str]:
    """The differences that are not explained, and the explanations that are not true."""
    lines = []
    for name in sorted(django.outcomes.keys() | djasgi.outcomes.keys()):
        theirs = django.outcomes.get(name, "did not run")
        ours = djasgi.outcomes.get(name, "did not run")
        if name in NOT_APPLICABLE:
            if ours == "Success":
                lines.append(f"{name}: is said not to apply, and succeeds")
        elif theirs != ours:
            lines.append(f"{name}: {theirs} with Django's server, {ours} with djasgi's")
    return lines


def main() -> int:
    """Run, compare, and say so."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--series", action="append", choices=SERIES, default=[])
    parser.add_argument("--server", action="append", choices=SERVERS, default=[])
    parser.add_argument("--python", help="for series that this Python cannot run")
    parser.add_argument("labels", nargs="*", default=[])
    arguments = parser.parse_args()
    labels = arguments.labels or list(LABELS)
    failed = False
    for series in arguments.series or SERIES:
        python = interpreter(SERIES[series], arguments.python)
        if python is None:
            oldest = ".".join(map(str, SERIES[series]))
            print(f"Django {series}: not run, it needs Python {oldest}")
            continue
        command, source = prepare(series, python)
        install(command)
        for database in DATABASES:
            django = run(command, source, "django", database, labels)
            counts = dict(Counter(django.outcomes.values()))
            total = len(django.outcomes)
            print(f"{source.name}, database in {database}: {total} tests, {counts}")
            failed = failed or not total
            for server in arguments.server or SERVERS:
                djasgi = run(command, source, server, database, labels)
                lines = compare(django, djasgi)
                apart = djasgi.outcomes.keys() & (NOT_APPLICABLE | OF_THEIR_OWN).keys()
                print(
                    f"  {server}: {len(lines)} differences in {total - len(apart)} tests, "
                    f"{djasgi.servers} live servers, {djasgi.requests} requests"
                )
                for line in lines:
                    print(f"    {line}")
                failed = failed or bool(lines) or not djasgi.requests
    print("Not applicable:")
    for name, reason in (NOT_APPLICABLE | OF_THEIR_OWN | LEFT_OUT).items():
        print(f"  {name}: {reason}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
