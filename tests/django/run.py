"""Django's own test suite with djasgi's handler and without: the results are the same.

    python -m tests.django.run [--series 5.2 ...] [--client sync|async|both]
                               [--python PYTHON] [LABEL ...]

The source distributions come from the package index, into build/django, with an
environment for each. A series is left out, and named, if no interpreter here can run it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "django"

SERIES = {"5.2": (3, 11), "6.0": (3, 12), "6.1": (3, 12)}
"""What is verified, with the oldest Python for each."""

NEEDED = ("asgiref>=3.13", "docutils", "jinja2", "Pillow", "sqlparse", "tblib")

LABELS = (
    "asgi", "async", "handlers", "middleware", "middleware_exceptions", "csrf_tests",
    "sessions_tests", "messages_tests", "requests_tests", "signals", "test_client",
    "test_client_regress", "view_tests", "file_uploads", "responses", "httpwrappers",
    "transactions", "transaction_hooks", "backends.base", "servers", "staticfiles_tests",
    "logging_tests", "conditional_processing", "auth_tests", "generic_views", "decorators",
    "urlpatterns_reverse", "deprecation", "i18n", "context_processors", "sites_tests",
    "flatpages_tests", "redirects_tests", "contenttypes_tests", "dispatch", "wsgi", "cache",
)  # fmt: skip

HANDLERS = ("django", "djasgi")
GOOD = ("Success", "Skip", "ExpectedFailure")


@dataclass(frozen=True)
class Result:
    """The outcome of each test, and how often which resource was left open."""

    outcomes: dict[str, str]
    warnings: Counter[str]


def interpreter(oldest: tuple[int, int], named: str | None) -> str | None:
    """A Python that can run what needs `oldest`: the one that was named, else any."""
    if sys.version_info[:2] >= oldest:
        return sys.executable
    if named:
        return named
    for minor in (13, 14, 12):
        command = shutil.which(f"python3.{minor}")
        if command and (3, minor) >= oldest:
            done = subprocess.run(
                [command, "-c", "import ensurepip, sqlite3"],
                capture_output=True,
                check=False,
            )
            if done.returncode == 0:
                return command
    return None


def prepare(series: str, python: str) -> tuple[Path, Path]:
    """An interpreter with what the suite needs, and the newest source of the series."""
    folder = BUILD / series
    command = folder / "venv" / "bin" / "python"
    if not command.exists():
        subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
    pip: list[str | Path] = [
        command,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--quiet",
    ]
    subprocess.run([*pip, "install", *NEEDED], check=True)
    download: list[str | Path] = [
        "download",
        "--no-deps",
        "--no-binary",
        ":all:",
        "--dest",
        folder,
    ]
    subprocess.run([*pip, *download, f"django=={series}.*"], check=True)
    archive = max(folder.glob("*.tar.gz"), key=lambda path: path.stat().st_mtime)
    source = folder / archive.name.removesuffix(".tar.gz")
    if not source.exists():
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    return command, source


def run(
    python: Path, source: Path, handler: str, client: str, labels: list[str]
) -> Result:
    """The suite in a process of its own."""
    name = f"{client}-{handler}"
    result, log = source.parent / f"{name}.json", source.parent / f"{name}.log"
    result.unlink(missing_ok=True)
    suite = Path(__file__).with_name("suite.py")
    with log.open("w") as output:
        subprocess.run(
            [python, suite, source, result, handler, client, *labels],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if not result.exists():
        raise SystemExit(f"The suite did not run: {log}")
    data: dict[str, Any] = json.loads(result.read_text())
    return Result(data["results"], Counter(data["warnings"]))


def compare(django: Result, djasgi: Result, client: str) -> tuple[list[str], list[str]]:
    """The differences, and those that are improvements.

    With the asynchronous chain below a synchronous client Django itself has failures:
    its error handlers run in another thread, with another database connection.
    """
    worse: list[str] = []
    better: list[str] = []
    for name in sorted(django.outcomes.keys() | djasgi.outcomes.keys()):
        theirs = django.outcomes.get(name, "did not run")
        ours = djasgi.outcomes.get(name, "did not run")
        if theirs == ours:
            continue
        line = f"{name}: {theirs} with Django's handler, {ours} with djasgi's"
        improved = client == "async" and ours in GOOD and theirs not in GOOD
        (better if improved else worse).append(line)
    for text in django.warnings.keys() | djasgi.warnings.keys():
        theirs_, ours_ = django.warnings[text], djasgi.warnings[text]
        if ours_ > theirs_:
            worse.append(
                f"{text}: {theirs_} times with Django's, {ours_} with djasgi's"
            )
    return worse, better


_NOT_LOADED = "unittest.loader._FailedTest"
"""What unittest has in place of a label that it cannot import."""


def main() -> int:
    """Run, compare, and say so."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--series", action="append", choices=SERIES, default=[])
    parser.add_argument("--client", choices=("sync", "async", "both"), default="both")
    parser.add_argument("--python", help="for series that this Python cannot run")
    parser.add_argument("labels", nargs="*", default=[])
    arguments = parser.parse_args()
    clients = ("sync", "async") if arguments.client == "both" else (arguments.client,)
    failed = False
    for series in arguments.series or SERIES:
        python = interpreter(SERIES[series], arguments.python)
        if python is None:
            oldest = ".".join(map(str, SERIES[series]))
            print(f"Django {series}: not run, it needs Python {oldest}")
            continue
        command, source = prepare(series, python)
        for client in clients:
            labels = arguments.labels or list(LABELS)
            with ThreadPoolExecutor(len(HANDLERS)) as pool:
                runs = [
                    pool.submit(run, command, source, handler, client, labels)
                    for handler in HANDLERS
                ]
            django, djasgi = (each.result() for each in runs)
            worse, better = compare(django, djasgi, client)
            counts = dict(Counter(djasgi.outcomes.values()))
            print(
                f"{source.name}, client {client}: {len(djasgi.outcomes)} tests, {counts}"
            )
            print(f"  {len(worse)} differences, {len(better)} improvements")
            for line in [*worse, *better]:
                print(f"  {line}")
            missing = [name for name in django.outcomes if _NOT_LOADED in name]
            for name in missing:
                print(f"  not loaded, with either handler: {name}")
            failed = failed or bool(worse or missing)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
