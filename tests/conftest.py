"""What holds for all tests."""

from __future__ import annotations

import compileall
from pathlib import Path
from zlib import crc32

import pytest

import djasgi
from djasgi.options import SERVERS

UNMEASURED = pytest.StashKey[bool]()

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


ABOVE_THE_SERVERS = {
    "test_bad_input.py",
    "test_container.py",
    "test_handler.py",
    "test_health.py",
    "test_operate.py",
    "test_out_of_memory.py",
    "test_output.py",
    "test_preload.py",
    "test_projects.py",
    "test_reload.py",
    "test_reload_fails.py",
    "test_replacement.py",
    "test_serve.py",
    "test_systemd.py",
    "test_terminal.py",
    "test_threads.py",
    "test_tutorial.py",
}
"""The tests of what is the same code whichever server is chosen."""

ABOVE_THEM_TOO = {
    "test_native_setting_that_is_none_is_refused",
    "test_no_plain_text_on_a_tls_port",
    "test_workers_auto_prints_its_arithmetic",
}
"""More of them, among those of the options."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Choose what is left to `make test-all`, and whose processes are measured."""
    _take_turns(
        [
            item
            for item in items
            if item.path.name in ABOVE_THE_SERVERS
            or getattr(item, "originalname", "") in ABOVE_THEM_TOO
        ]
    )
    chosen: set[object] = set()
    for item in items:
        if item.get_closest_marker("slow"):
            continue
        name = getattr(item, "originalname", item.name)
        case = (item.path, name, item.path.name in ENGINES and _server(item))
        if case in chosen:
            item.stash[UNMEASURED] = True
        chosen.add(case)


def _take_turns(items: list[pytest.Item]) -> None:
    """Leave each test on one of its servers, the same in each run, none more often."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if server := _server(item):
            name, _, case = item.name.partition("[")
            key = f"{item.path.name} {name} {case.replace(server, '')}"
            cases.setdefault(key, []).append(item)
    for key, alike in cases.items():
        del alike[crc32(key.encode()) % len(alike)]
        for item in alike:
            item.add_marker(pytest.mark.slow)


def _server(item: pytest.Item) -> str:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    # The one that a test starts is among its own parameters, or its fixture's.
    return next((str(value) for value in parameters.values() if value in SERVERS), "")


def pytest_configure(config: pytest.Config) -> None:
    """Compile djasgi once: thousands of processes that do not write bytecode read it."""
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(Path(djasgi.__file__).parent, quiet=1)


@pytest.fixture(autouse=True)
def _measured_once(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measure the coverage of processes in one case of each test.

    To measure a process costs as much as to start it, and there are thousands.
    """
    if request.node.stash.get(UNMEASURED, default=False):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
