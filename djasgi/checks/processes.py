"""Several processes, and how they start and end."""

from __future__ import annotations

import re
from collections.abc import Iterator

from djasgi.checks.base import Finding, Needs, check
from djasgi.checks.context import Context
from djasgi.checks.websockets import speaks_websocket
from djasgi.deployments.launch import Launch

LOCAL_MEMORY = "django.core.cache.backends.locmem.LocMemCache"
CACHE_SESSIONS = (
    "django.contrib.sessions.backends.cache",
    "django.contrib.sessions.backends.cached_db",
)
CACHES = "https://docs.djangoproject.com/en/stable/topics/cache/#local-memory-caching"


def _is_local(context: Context, alias: str) -> bool:
    cache = (context.settings.CACHES or {}).get(alias) or {}
    return bool(cache.get("BACKEND") == LOCAL_MEMORY)


@check(
    "E061",
    "Sessions are forgotten between workers",
    row=34,
    why="The local-memory cache, Django's default, lives in one process. With sessions in "
    "it a visitor is logged in on one worker and a stranger on the next; with cached_db a "
    "worker goes on using its own old copy of a session that another has changed.",
    links=(CACHES, "https://docs.djangoproject.com/en/stable/topics/http/sessions/"),
    example='SESSION_ENGINE = "django.contrib.sessions.backends.cache"\n\n'
    "$ djasgi check --workers 4",
)
def local_sessions(context: Context) -> Iterator[Finding]:
    settings, several = context.settings, context.several_workers
    if several is None or settings.SESSION_ENGINE not in CACHE_SESSIONS:
        return
    if (
        "django.contrib.sessions.middleware.SessionMiddleware"
        not in settings.MIDDLEWARE
    ):
        return
    if _is_local(context, settings.SESSION_CACHE_ALIAS):
        yield Finding(
            f"{several[0]}, and SESSION_ENGINE keeps sessions in the cache "
            f"{settings.SESSION_CACHE_ALIAS!r}, which each has for itself.",
            "Use a shared cache such as Redis, or sessions in the database.",
            context.setting("SESSION_ENGINE"),
        )


@check(
    "W062",
    "Limits count in each worker by itself",
    row=34,
    why="Throttles and rate limits count in the cache. In the local-memory cache, Django's "
    "default, each worker has counters of its own: the limit is multiplied by the number "
    "of workers.",
    links=(
        CACHES,
        "https://www.django-rest-framework.org/api-guide/throttling/#setting-up-the-cache",
    ),
    example='REST_FRAMEWORK = {"DEFAULT_THROTTLE_CLASSES": [...]}\n\n'
    "$ djasgi check --workers 4",
)
def local_limits(context: Context) -> Iterator[Finding]:
    settings, several = context.settings, context.several_workers
    if several is None:
        return
    framework = getattr(settings, "REST_FRAMEWORK", None) or {}
    throttles = framework.get("DEFAULT_THROTTLE_CLASSES")
    if throttles and _is_local(context, "default"):
        yield Finding(
            f"{several[0]}, and the throttles of REST framework count in the cache "
            "'default', which each has for itself.",
            "Use a shared cache such as Redis.",
            context.setting("REST_FRAMEWORK", "DEFAULT_THROTTLE_CLASSES"),
        )
    alias = getattr(settings, "RATELIMIT_USE_CACHE", "default")
    limited = getattr(settings, "RATELIMIT_ENABLE", True) and any(
        True for _ in context.sources.containing(b"django_ratelimit.decorators")
    )
    if limited and _is_local(context, alias):
        yield Finding(
            f"{several[0]}, and django-ratelimit counts in the cache {alias!r}, which "
            "each has for itself.",
            "Use a shared cache such as Redis.",
            context.setting("CACHES"),
        )


@check(
    "W063",
    "Metrics jump between workers",
    row=48,
    why="prometheus_client counts in the process. With several workers each scrape reaches "
    "one of them and sees its counters only: rates jump, counters seem to go backwards.",
    links=("https://prometheus.github.io/client_python/multiprocess/",),
    example='INSTALLED_APPS = ["django_prometheus", …]\n\n$ djasgi check --workers 4',
)
def metrics(context: Context) -> Iterator[Finding]:
    several, settings = context.several_workers, context.settings
    if several is None or "django_prometheus" not in settings.INSTALLED_APPS:
        return
    if getattr(settings, "PROMETHEUS_METRICS_EXPORT_PORT_RANGE", None):
        return
    names = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
    if any(map(context.variable, names)) or any(
        name in text for text in context.deployments.texts.values() for name in names
    ):
        return
    if context.sources.mention(b"PROMETHEUS_MULTIPROC_DIR"):
        return
    yield Finding(
        f"{several[0]}, and PROMETHEUS_MULTIPROC_DIR is not set.",
        "Set PROMETHEUS_MULTIPROC_DIR to an empty folder that they share.",
        context.setting("INSTALLED_APPS", "django_prometheus"),
    )


HEALTH_CHECK = 5.0
"""Seconds after which uvicorn gives up a worker that does not answer, by default."""


@check(
    "W064",
    "uvicorn kills workers that are still starting",
    row=37,
    why="With --workers uvicorn pings its workers and kills those that do not answer "
    "within five seconds. A worker that is importing cannot answer: a project that takes "
    "longer is killed again and again, or its reload is given up.",
    links=("https://uvicorn.dev/settings/#timeouts",),
    example="# Procfile\nweb: uvicorn config.asgi:application --workers 4 …\n\n"
    "and a project that takes six seconds to import",
)
def slow_boot(context: Context) -> Iterator[Finding]:
    for launch in context.native():
        if launch.server.name != "uvicorn" or (launch.workers or 0) <= 1:
            continue
        limit = launch.server.number("--timeout-worker-healthcheck")
        if launch.server.has("--timeout-worker-healthcheck") and limit is None:
            continue
        if context.load_seconds > (limit or HEALTH_CHECK):
            yield Finding(
                f"The project took {context.load_seconds:.1f} seconds to import, and "
                f"uvicorn waits {limit or HEALTH_CHECK:g}.",
                "Add --timeout-worker-healthcheck 60, or start it with djasgi serve.",
                context.launch_place(launch),
            )


@check(
    "W065",
    "uvicorn waits for ever for open streams when it stops",
    row=38,
    why="On SIGTERM uvicorn waits until every response has ended, without a limit. An "
    "event stream or a websocket does not end by itself: the stop, and each reload, hangs "
    "until the platform kills the process, and requests in flight with it.",
    links=("https://uvicorn.dev/settings/#timeouts",),
    example="# Procfile\nweb: uvicorn config.asgi:application --host 0.0.0.0 --port $PORT",
)
def endless_stop(context: Context) -> Iterator[Finding]:
    launches = [
        launch
        for launch in context.native()
        if launch.server.name == "uvicorn"
        and not launch.server.has("--timeout-graceful-shutdown")
        and "UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN" not in launch.variables
    ]
    if not launches:
        return
    if speaks_websocket(context.application):
        what = "websockets"
    elif any(True for _ in context.sources.containing(b"text/event-stream")):
        what = "event streams"
    else:
        return
    for launch in launches:
        yield Finding(
            f"The project has {what}, and uvicorn is given no limit for its stop.",
            "Add --timeout-graceful-shutdown 20, or start it with djasgi serve.",
            context.launch_place(launch),
        )


@check(
    "W066",
    "Killed in the middle of a graceful stop",
    row=39,
    needs=Needs.FILES,
    why="Whoever stops the process waits a fixed time and then kills it: Docker 10 "
    "seconds, fly.io 5, Heroku 30. A server that may take longer to finish what is in "
    "flight is killed in the middle of it, and requests are cut off at every deploy.",
    links=(
        "https://docs.docker.com/reference/compose-file/services/#stop_grace_period",
        "https://fly.io/docs/reference/configuration/#kill_timeout-option",
        "https://devcenter.heroku.com/articles/dynos#shutdown",
    ),
    example="# compose.yaml\nservices:\n  web:\n    command: djasgi serve --env production\n"
    "    # no stop_grace_period: Docker kills after 10 seconds",
)
def killed_early(context: Context) -> Iterator[Finding]:
    for launch in context.launches:
        allowed, by = _grace(launch)
        needed, how = _needed(context, launch)
        if allowed is None or needed is None or needed < allowed:
            continue
        yield Finding(
            f"{how}, and {by} kills after {allowed:g}.",
            _more_time(launch, needed),
            context.launch_place(launch),
        )


def _grace(launch: Launch) -> tuple[float | None, str]:
    """How long the stop may take, and who says so."""
    facts = launch.facts
    match launch.kind:
        case "compose":
            return seconds(facts["stop_grace_period"] or "10s"), "Docker"
        case "fly.toml":
            return seconds(facts["kill_timeout"] or "5s"), "fly.io"
        case "systemd":
            return seconds(facts.get("TimeoutStopSec", "90s")), "systemd"
        case "Procfile":
            return 30.0, "the platform"
    return None, ""


def _needed(context: Context, launch: Launch) -> tuple[float | None, str]:
    """How long a launch may take to stop, and a sentence about it."""
    server = launch.server
    match server.name:
        case "djasgi":
            if context.plan is None:
                return None, ""
            options = context.plan.options
            graceful = server.number("--graceful-timeout")
            drain = server.number("--drain-delay")
            total = (options.graceful_timeout if graceful is None else graceful) + (
                options.drain_delay if drain is None else drain
            )
            return total, f"djasgi may take {total:g} seconds to stop"
        case "uvicorn":
            graceful = server.number("--timeout-graceful-shutdown")
        case "hypercorn":
            graceful = server.number("--graceful-timeout")
        case "gunicorn":
            graceful = server.number("--graceful-timeout")
        case _:
            graceful = None
    if graceful is None:
        return None, ""
    return graceful, f"{server.name} may take {graceful:g} seconds to stop"


def _more_time(launch: Launch, needed: float) -> str:
    more = int(needed) + 10
    match launch.kind:
        case "compose":
            return f"Set stop_grace_period: {more}s for the service."
        case "fly.toml":
            return f"Set kill_timeout = {more} (and kill_signal = 'SIGTERM')."
        case "systemd":
            return f"Set TimeoutStopSec={more}."
    return "Let it take less: --graceful-timeout 20."


def seconds(text: str) -> float | None:
    """`1m30s`, `10` or `10s` in seconds; None for what is not understood."""
    units = {"": 1, "s": 1, "sec": 1, "ms": 0.001, "m": 60, "min": 60, "h": 3600}
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.lower())
    if not parts or any(unit not in units for _, unit in parts):
        return None
    return float(sum(float(number) * units[unit] for number, unit in parts))


@check(
    "E067",
    "The process ends after some requests, and nobody starts it again",
    row=40,
    needs=Needs.FILES,
    why="--limit-max-requests makes uvicorn end itself, with exit code 0. Without "
    "--workers there is no supervisor that would start another: the site is down until "
    "the platform notices.",
    links=("https://uvicorn.dev/settings/#resource-limits",),
    example='CMD ["uvicorn", "config.asgi:application", "--limit-max-requests", '
    '"1000"]',
)
def ends_itself(context: Context) -> Iterator[Finding]:
    for launch in context.native():
        if launch.server.name != "uvicorn" or launch.kind not in (
            "Dockerfile",
            "Procfile",
        ):
            continue
        workers = launch.server.value("--workers") or launch.variables.get(
            "WEB_CONCURRENCY"
        )
        if launch.server.number("--limit-max-requests") and not workers:
            yield Finding(
                "uvicorn ends itself after "
                f"{launch.server.number('--limit-max-requests'):g} requests.",
                "Add --workers 2, or use djasgi serve --max-requests.",
                context.launch_place(launch),
            )
