"""Serve a few requests with a monitoring agent active, and print what it has recorded.

    python -m tests.support.agent AGENT HANDLER

AGENT is `sentry`, `sentry spans` (with a span for each middleware) or `opentelemetry`.
HANDLER is `django`, `djasgi`, or `late` for djasgi's, imported when the agent is active.
Prints JSON: what was recorded, and the hops of each request.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from asgiref.sync import SyncToAsync
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponse
from django.urls import path

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]


def sync(request: Any) -> HttpResponse:
    """A synchronous view."""
    return HttpResponse("sync")


async def asynchronous(request: Any) -> HttpResponse:
    """An asynchronous view."""
    await asyncio.sleep(0)
    return HttpResponse("async")


def broken(request: Any) -> HttpResponse:
    """A view that raises."""
    raise ValueError("broken")


urlpatterns = [
    path("sync/", sync),
    path("async/", asynchronous),
    path("broken/", broken),
]


def sentry(*, spans: bool) -> Any:
    """Start sentry-sdk; a function that returns what it has recorded."""
    import sentry_sdk
    from sentry_sdk.integrations.django import DjangoIntegration
    from sentry_sdk.transport import Transport

    found: list[Any] = []

    class Keep(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            found.extend(item.payload.json for item in envelope.items)

    sentry_sdk.init(
        "http://key@localhost/1",
        transport=Keep,
        traces_sample_rate=1.0,
        integrations=[DjangoIntegration(middleware_spans=spans)],
    )

    def recorded() -> list[Any]:
        sentry_sdk.flush()
        return [shown for event in found if (shown := sentry_event(event))]

    return recorded


def sentry_event(event: dict[str, Any]) -> Any:
    """A transaction with the tree of its spans, or an error."""
    if event.get("type") == "transaction":
        trace = event["contexts"]["trace"]
        names = {span["span_id"]: span["description"] for span in event["spans"]}
        spans = [
            (
                span["op"],
                span["description"],
                span.get("tags"),
                names.get(span["parent_span_id"], "transaction"),
            )
            for span in event["spans"]
        ]
        return event["transaction"], trace["op"], trace.get("status"), spans
    if "exception" in event:
        raised = [value["type"] for value in event["exception"]["values"]]
        return "error", event.get("transaction"), raised, event["request"]["url"]
    return None


def opentelemetry() -> Any:
    """Start OpenTelemetry; a function that returns what it has recorded."""
    from opentelemetry import trace
    from opentelemetry.instrumentation.django import DjangoInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
        InMemorySpanExporter,
    )

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    DjangoInstrumentor().instrument()

    def recorded() -> list[Any]:
        return [
            (
                span.name,
                str(span.kind),
                dict(span.attributes or {}),
                str(span.status.status_code),
                [event.name for event in span.events],
            )
            for span in exporter.get_finished_spans()
        ]

    return recorded


async def requests(application: Any) -> dict[str, list[str]]:
    """The hops of a request for each of the views."""
    hops: dict[str, list[str]] = {}
    original = SyncToAsync.__call__
    for name in ("sync", "async", "broken"):
        messages = [{"type": "http.request"}]
        counted = hops[name] = []

        async def call(self: Any, *args: Any, _to: Any = counted, **kwargs: Any) -> Any:
            _to.append(self.func.__name__)
            return await original(self, *args, **kwargs)

        async def receive(_from: Any = messages) -> Any:
            if _from:
                return _from.pop()
            return await asyncio.get_running_loop().create_future()

        async def send(message: Any) -> None:
            pass

        SyncToAsync.__call__ = call  # type: ignore[method-assign]
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "path": f"/{name}/",
            "query_string": b"",
            "headers": [(b"host", b"example.com")],
            "server": ("example.com", 80),
            "client": ("127.0.0.1", 1),
        }
        await application(scope, receive, send)
    return hops


def main() -> None:
    """Do it."""
    agent, handler = sys.argv[1:]
    settings.configure(
        SECRET_KEY="for tests only",
        ROOT_URLCONF="tests.support.agent",
        MIDDLEWARE=MIDDLEWARE,
        ALLOWED_HOSTS=["*"],
        LOGGING_CONFIG=None,
    )
    if handler == "djasgi":
        import djasgi.handler  # noqa: F401  # before the agent
    recorded = (
        opentelemetry() if agent == "opentelemetry" else sentry(spans="spans" in agent)
    )
    if handler == "django":
        import django

        django.setup()
        application: Any = ASGIHandler()
    else:
        from djasgi.handler import get_asgi_application

        application = get_asgi_application()
    hops = asyncio.run(requests(application))
    print(json.dumps({"recorded": recorded(), "hops": hops}))


if __name__ == "__main__":
    main()
