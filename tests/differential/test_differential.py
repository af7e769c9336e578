"""Whatever is stacked and requested, all that happens is what happens under Django.

Short and repeatable by default. A long run with new cases each time:

    DJASGI_EXAMPLES=20000 pytest tests/differential
"""

from __future__ import annotations

import asyncio
import difflib
import os
from collections.abc import Callable
from typing import Any

import pytest
from django.core.handlers import asgi
from hypothesis import HealthCheck, Phase, given, settings

from djasgi.handler import ASGIHandler, agents, exchange, nodes
from djasgi.handler.strand import Strand
from tests.differential.cases import cases, disconnected
from tests.differential.world import VIEWS, Case, Layer, trace
from tests.support.django_settings import configure

configure()

EXAMPLES = int(os.environ.get("DJASGI_EXAMPLES", "0"))

SYNC_STREAM = "ignore:StreamingHttpResponse must consume synchronous iterators"
NOT_MARKED = "ignore:async_to_sync was passed a non-async-marked callable"
NOT_AWAITED = "ignore:coroutine .* was never awaited"
pytestmark = [
    pytest.mark.filterwarnings(SYNC_STREAM),
    pytest.mark.filterwarnings(NOT_AWAITED),
    pytest.mark.filterwarnings(NOT_MARKED),
    pytest.mark.timeout(max(300, EXAMPLES)),
]


def repeatable(examples: int) -> Callable[[Any], Any]:
    """So many cases, the same ones each time, unless a number was asked for."""
    return settings(
        max_examples=EXAMPLES or examples,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


def difference(case: Case, *, served: bool = True) -> list[str]:
    """What differs between the trace under Django's handler and the one under djasgi's."""
    theirs = trace(asgi.ASGIHandler, case)
    ours = trace(ASGIHandler, case, served=served)
    if theirs == ours:
        return []
    lines = difflib.unified_diff(
        list(map(repr, theirs)), list(map(repr, ours)), "django", "djasgi", lineterm=""
    )
    return [repr(case), *lines]


SERVED = pytest.mark.parametrize("served", [True, False], ids=["djasgi", "other"])
"""What calls the handler: djasgi with its layers, or another launcher."""


@SERVED
@repeatable(200)
@given(case=cases())
def test_all_is_as_under_django(case: Case, served: bool) -> None:
    assert difference(case, served=served) == []


@SERVED
@repeatable(125)
@given(case=disconnected())
def test_all_is_as_under_django_when_the_client_goes_away(
    case: Case, served: bool
) -> None:
    assert difference(case, served=served) == []


STACK = (
    Layer("mixin", (("process_request", "set"), ("process_response", "pass"))),
    Layer("both", (("before", "pass"), ("after", "pass"))),
    Layer("mixin", (("process_view", "pass"), ("process_exception", "pass"))),
    Layer("function", (("before", "pass"), ("after", "pass"))),
    Layer(
        "mixin", (("process_request", "pass"), ("process_template_response", "pass"))
    ),
)


@pytest.mark.parametrize("action", ["respond", "raise 404", "raise value"])
@pytest.mark.parametrize("view", VIEWS)
def test_each_view(view: str, action: str) -> None:
    for layers in ((), STACK[:1], STACK):
        case = Case(layers=layers, view=view, action=action)
        assert difference(case) == []
        assert difference(case, served=False) == []


# That the comparison sees what it is there for


def test_running_on_after_the_client_has_gone_is_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def call(self: Strand, function: Any, *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    monkeypatch.setattr(Strand, "call_here", call)
    case = Case(layers=STACK[:1], disconnect="m0.process_request")
    assert any("view" in line for line in difference(case))


def test_a_hook_too_many_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    original = nodes.Fused.respond

    async def respond(self: Any, strand: Any, request: Any) -> Any:
        self.middleware.process_request(request)
        return await original(self, strand, request)

    monkeypatch.setattr(nodes.Fused, "respond", respond)
    assert difference(Case(layers=STACK[:1]))


def test_another_thread_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    original = nodes.View.respond

    async def respond(self: Any, strand: Any, request: Any) -> Any:
        await strand.loop()
        return await asyncio.to_thread(asyncio.run, original(self, Strand(), request))

    monkeypatch.setattr(nodes.View, "respond", respond)
    assert difference(Case(layers=STACK[:1]))


@pytest.mark.skipif(not exchange.APART, reason="one context since Django 6.1")
def test_context_of_a_signal_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "APART", False)
    assert difference(Case(receivers=("started set", "finished")))


def test_wrapped_by_an_agent_is_recognised_only_as_such() -> None:
    assert not agents.only_looks(None)
    assert not agents.is_traced(object(), None)
