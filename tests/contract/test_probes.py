"""Every option and every difference has a probe, on every server, and none is skipped."""

from __future__ import annotations

import inspect

import pytest

from djasgi.options import OPTIONS, SERVERS
from djasgi.servers.differences import DIFFERENCES, Difference
from tests.conformance import test_differences, test_options
from tests.support.probes import all_probes

MODULES = (test_differences, test_options)

BY_SERVER = {*("server", "plain", "full", "quiet", "platform", "secure", "limited")}
"""Fixtures that are parametrised with the servers, all of them."""


@pytest.mark.parametrize("name", OPTIONS)
def test_option_is_probed_on_every_server(name: str) -> None:
    found = [probe for probe in all_probes() if probe.option == name]
    assert found, "declared, and not probed"
    for probe in found:
        assert probe.fixtures & BY_SERVER, probe


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda d: d.what)
def test_difference_is_pinned(difference: Difference) -> None:
    """Its probe runs on every server, and says what differs: it is no other test."""
    assert set(difference.servers) == set(SERVERS)
    assert len(set(difference.servers.values())) > 1, "it is none"
    file, _, name = difference.probe.partition("::")
    assert file == "conformance/test_differences.py"
    probe = getattr(test_differences, name)
    assert "shared" in inspect.signature(probe).parameters
    source = inspect.getsource(probe)
    assert any(f'"{server}"' in source for server in SERVERS)


def test_every_pin_is_of_a_difference() -> None:
    pins = {name for name in vars(test_differences) if name.startswith("test_")}
    assert {d.probe.rpartition("::")[2] for d in DIFFERENCES} == pins


def test_no_probe_is_skipped_silently() -> None:
    for module in MODULES:
        source = inspect.getsource(module)
        for skip in ("pytest.skip", "importorskip", "mark.skip("):
            assert skip not in source, module
