"""What holds for all tests."""

from __future__ import annotations

import pytest

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
