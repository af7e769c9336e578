from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.checks.zygote import Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """The djasgi command, quick because Django is imported already."""
    with Zygote() as running:
        yield running
