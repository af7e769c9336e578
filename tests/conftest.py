"""What holds for all tests."""

from __future__ import annotations

import compileall
import signal
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest

import djasgi
from djasgi.options import SERVERS

# What is ignored here is ignored in what the tests start: as below nohup, and in the
# background of a shell without job control.
for number, default in (
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, default)

UNMEASURED = pytest.StashKey[bool]()

ABOVE_THE_SERVERS = {
    "test_bad_input.py",
    "test_container.py",
    "test_handler.py",
    "test_health.py",
    "test_native_setting_that_is_none_is_refused",
    "test_no_plain_text_on_a_tls_port",
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
    "test_workers_auto_prints_its_arithmetic",
}
"""The tests, by file or name, of what is the same code whichever server is chosen."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Choose what is left to `make test-all`, and whose processes are measured."""
    servers: dict[str, list[pytest.Item]] = {}
    for item in items:
        if _is_above(item) and (server := _server(item)):
            test, _, case = item.nodeid.partition("[")
            key = f"{test}[{case.replace(server, '')}"
            servers.setdefault(key, []).append(item)
    for item in _all_but_one_of_each(servers):
        item.add_marker(pytest.mark.slow)
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if not item.get_closest_marker("slow"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    for item in _all_but_one_of_each(cases):
        item.stash[UNMEASURED] = True


def _all_but_one_of_each(groups: dict[str, list[pytest.Item]]) -> Iterator[pytest.Item]:
    """The one is the same in each run, and the first as often as the last."""
    for key, items in groups.items():
        one = crc32(key.encode()) % len(items)
        yield from items[:one] + items[one + 1 :]


def _is_above(item: pytest.Item) -> bool:
    names = (item.path.name, item.name.partition("[")[0])
    return not ABOVE_THE_SERVERS.isdisjoint(names)


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
