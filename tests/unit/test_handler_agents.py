"""Monitoring agents record the same, and requests still take fewer hops."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@cache
def observed(agent: str, handler: str) -> dict[str, Any]:
    """What the agent has recorded, and the hops; in a process, for agents patch Django."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.agent", agent, handler],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    data: dict[str, Any] = json.loads(done.stdout)
    return data


@pytest.mark.parametrize("handler", ["djasgi", "late"])
@pytest.mark.parametrize(
    ("agent", "hops"),
    [
        ("sentry", {"sync": 2, "async": 3, "broken": 3}),
        ("sentry spans", {"sync": 2, "async": 3, "broken": 3}),
        ("opentelemetry", {"sync": 1, "async": 2, "broken": 1}),
    ],
)
def test_agent_records_the_same(agent: str, hops: dict[str, int], handler: str) -> None:
    django, djasgi = observed(agent, "django"), observed(agent, handler)
    assert djasgi["recorded"] == django["recorded"]
    assert len(django["recorded"]) >= 3
    assert {name: len(made) for name, made in djasgi["hops"].items()} == hops
    assert all(len(made) >= 10 for made in django["hops"].values())
