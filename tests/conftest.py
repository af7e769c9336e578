"""What holds for all tests."""

from __future__ import annotations

import compileall
from pathlib import Path

import pytest

import djasgi

ENGINES = {
    "test_differences.py",
    "test_drain.py",
    "test_engines.py",
    "test_fuzz.py",
    "test_http.py",
    "test_http2.py",
    "test_websockets.py",
}
"""The tests that run code that is not the same for each server."""


BEFORE_THE_SERVER = {"test_bad_input.py", "test_projects.py"}
"""The tests of what happens before a server is imported, by the hundred."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave one of the servers to `make test-all` where it makes no difference."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        third = parameters.get("server") == "hypercorn"
        if third and item.path.name in BEFORE_THE_SERVER:
            item.add_marker(pytest.mark.slow)


def pytest_configure(config: pytest.Config) -> None:
    """Compile djasgi once: thousands of processes that do not write bytecode read it."""
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(Path(djasgi.__file__).parent, quiet=1)


@pytest.fixture(autouse=True)
def _measured_once(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measure the coverage of what all servers share with one of them.

    To measure a process costs as much as to start it, and there are thousands.
    """
    parameters = getattr(getattr(request.node, "callspec", None), "params", {})
    others = parameters.get("server") in ("hypercorn", "daphne")
    if others and request.path.name not in ENGINES:
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
