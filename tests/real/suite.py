"""Run a project's own tests, and write down the result of each.

    python suite.py RESULT.json HANDLER CLIENT RUNNER ARGUMENT ...

HANDLER and CLIENT are those of `tests/django/suite.py`, which is what puts the handler in
place. RUNNER is `django` for its test command or `pytest`; the arguments are the runner's.
"""

from __future__ import annotations

import collections
import gc
import importlib.util
import json
import sys
import warnings
from pathlib import Path
from typing import Any


def django_suite() -> Any:
    """The module `tests/django/suite.py`; the projects have a package `tests` too."""
    path = Path(__file__).parents[1] / "django" / "suite.py"
    spec = importlib.util.spec_from_file_location("django_suite", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Recorder:
    """A plugin of pytest that notes the outcome of each test in `results`."""

    def __init__(self, results: dict[str, str]) -> None:
        self.results = results

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note it, under the names that unittest has for them."""
        if report.skipped:
            wanted = hasattr(report, "wasxfail")
            self.results[report.nodeid] = "ExpectedFailure" if wanted else "Skip"
        elif report.failed:
            failed = report.when == "call"
            self.results[report.nodeid] = "Failure" if failed else "Error"
        elif report.when == "call":
            self.results[report.nodeid] = "Success"


def main() -> None:
    result, handler, client, runner, *arguments = sys.argv[1:]
    # The script's own folder; the projects are found from the working directory.
    sys.path[0] = str(Path.cwd())
    suite = django_suite()
    results: dict[str, str] = {}
    found: collections.Counter[str] = collections.Counter()
    suite.record(results)
    suite.count_warnings(found)
    if handler == "djasgi":
        suite.put_in_place()
    if client == "async":
        if handler == "djasgi":
            from djasgi.handler.chain import FusedMiddleware

            suite.go_through_async_middleware(FusedMiddleware)
        else:
            suite.go_through_async_middleware()
    try:
        if runner == "pytest":
            import pytest

            pytest.main(arguments, plugins=[Recorder(results)])
        else:
            from django.core.management import execute_from_command_line

            warnings.simplefilter("error", ResourceWarning)
            execute_from_command_line(["manage.py", "test", *arguments])
    except SystemExit:
        pass
    finally:
        warnings.simplefilter("error", ResourceWarning)
        gc.collect()
        text = json.dumps({"results": results, "warnings": found}, indent=1)
        Path(result).write_text(text)


if __name__ == "__main__":
    main()
