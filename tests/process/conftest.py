"""What the tests of processes share: the three servers, and a project of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from djasgi.options import SERVERS
from tests.support.server import copy_project


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """A copy of the project `live`, which a test may change."""
    return copy_project("live", tmp_path)
