"""What only a running worker tells: `--probe`. Reads only."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from djasgi.checks.base import Finding, Needs, check
from djasgi.checks.context import Context
from djasgi.checks.websockets import websocket_chain

NOWHERE = "/djasgi-probe-of-no-page"
"""A path that no project has: what answers it comes before the views."""

FOREIGN = "https://djasgi-probe.invalid"
CHECKLIST = "https://docs.djangoproject.com/en/stable/howto/deployment/checklist/"
BAD_REQUEST = 400


def _host(context: Context) -> str:
    """A host that ALLOWED_HOSTS accepts."""
    for host in context.settings.ALLOWED_HOSTS or ():
        if host and host != "*":
            return f"www{host}" if host.startswith(".") else str(host)
    return "localhost"


def _is_redirect(status: int) -> bool:
    return status in (301, 302, 307, 308)


@check(
    "E081",
    "A worker does not start",
    row=15,
    needs=Needs.SERVED,
    why="The application is imported and then told to start up (ASGI lifespan). An error "
    "there appears once for each worker, at the deploy, on the server.",
    links=("https://asgi.readthedocs.io/en/latest/specs/lifespan.html",),
    example="async def application(scope, receive, send):\n"
    '    if scope["type"] == "lifespan":\n        await connect_to_broker()   # fails',
)
def does_not_start(context: Context) -> Iterator[Finding]:
    if context.served and context.served.failure:
        yield Finding(
            f"The worker says: {context.served.failure}",
            "Start it and read its log: djasgi serve",
        )


@check(
    "E082",
    "The health check is refused",
    row=31,
    needs=Needs.SERVED,
    why="A platform's probe comes over plain http, with the address of the machine as Host. "
    "ALLOWED_HOSTS answers it with 400, SECURE_SSL_REDIRECT with a redirect: the new "
    "version never becomes ready, or is killed again and again. djasgi's --health-path "
    "and --ready-path answer before Django sees the request.",
    links=(
        "https://docs.djangoproject.com/en/stable/ref/settings/#allowed-hosts",
        "https://docs.djangoproject.com/en/stable/ref/settings/#secure-redirect-exempt",
    ),
    example="# render.yaml\nhealthCheckPath: /healthz\n\n"
    'ALLOWED_HOSTS = ["example.com"]',
)
def health_refused(context: Context) -> Iterator[Finding]:
    served = context.served
    if served is None or served.failure:
        return
    for path, host, where, place in _health_paths(context):
        answer = served.get(path, {"Host": host})
        if answer is None:
            yield Finding(
                f"GET {path} ({where}) was not answered.", "Look at that view.", place
            )
        elif answer.status == BAD_REQUEST or _is_redirect(answer.status):
            yield Finding(
                f"GET {path} ({where}) with Host: {host} over http is answered with "
                f"{answer.status}.",
                f"Let djasgi answer it: --ready-path {path}",
                place,
            )


def _health_paths(context: Context) -> Iterator[tuple[str, str, str, Any]]:
    """Path, Host and origin of every health check that is known."""
    plan = context.plan
    outside = "10.1.2.3"
    own = set()
    for name in ("health_path", "ready_path"):
        path = getattr(plan.options, name, None) if plan else None
        if path and plan:
            own.add(path)
            yield path, outside, plan.values[name].origin, None
    seen: set[tuple[str, str]] = set()
    for launch in context.launches:
        text = launch.facts.get("health", "")
        place = context.launch_place(launch)
        found = re.search(r"https?://([\w.-]+)(?::\d+)?(/[\w./-]*)", text)
        if found:
            host, path = found[1], found[2]
        elif text.startswith("/"):
            host, path = outside, text
        else:
            continue
        if path not in own and (host, path) not in seen:
            seen.add((host, path))
            yield path, host, context.shown(launch.file), place
    for file, text in context.deployments.texts.items():
        if file.name.startswith("fly") and file.suffix == ".toml":
            for match in re.finditer(r'^\s*path\s*=\s*"(/[^"]*)"', text, re.MULTILINE):
                if match[1] not in own:
                    yield match[1], outside, context.shown(file), None


@check(
    "E083",
    "Every https request is redirected to itself",
    row=26,
    needs=Needs.SERVED,
    why="A request as a trusted proxy passes it on, with X-Forwarded-Proto: https, is "
    "redirected to https again: Django does not take it as secure. Behind the proxy that "
    "is a loop.",
    links=(
        "https://docs.djangoproject.com/en/stable/ref/settings/#secure-proxy-ssl-header",
    ),
    example="SECURE_SSL_REDIRECT = True\n"
    'SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "on")   # proxies say https',
)
def redirects_https(context: Context) -> Iterator[Finding]:
    served, plan = context.served, context.plan
    if served is None or served.failure or plan is None or plan.options.ssl_certfile:
        return
    if not context.settings.SECURE_SSL_REDIRECT or not _trusts_loopback(context):
        return
    headers = {
        "Host": _host(context),
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "203.0.113.7",
    }
    answer = served.get(NOWHERE, headers)
    location = answer.headers.get("location", "") if answer else ""
    scheme, _, rest = location.partition("://")
    same = scheme == "https" and rest.partition("/")[2].startswith(NOWHERE[1:])
    if answer and _is_redirect(answer.status) and same:
        yield Finding(
            "A request with X-Forwarded-Proto: https from this machine is answered "
            f"with {answer.status} to {location}.",
            "Let SECURE_PROXY_SSL_HEADER be what your proxy sets, or "
            "leave it out: djasgi sets the scheme itself.",
            context.setting("SECURE_SSL_REDIRECT"),
        )


def _trusts_loopback(context: Context) -> bool:
    options = context.plan.options if context.plan else None
    if options is None or not options.proxy_headers:
        return False
    for entry in options.forwarded_allow_ips:
        if entry == "*":
            return True
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            continue
        if ipaddress.ip_address("127.0.0.1") in network:
            return True
    return False


@check(
    "W084",
    "A websocket from a foreign site gets through",
    row=6,
    needs=Needs.SERVED,
    why="A handshake with the Origin of another site was not refused before the routing, "
    "and the application knows users by their cookies: a foreign page can talk to the "
    "consumers as the user who visits it.",
    links=("https://channels.readthedocs.io/en/stable/topics/security.html",),
    example='ProtocolTypeRouter({"websocket": AuthMiddlewareStack(URLRouter(…))})',
)
def foreign_origin(context: Context) -> Iterator[Finding]:
    served = context.served
    names = {type(layer).__name__ for layer in websocket_chain(context.application)}
    if served is None or served.failure:
        return
    if not names & {"AuthMiddleware", "SessionMiddleware"}:
        return
    headers = {"Host": _host(context), "Origin": FOREIGN}
    status = served.websocket(NOWHERE, headers)
    if status in (101, 500):
        reached = "accepted" if status == 101 else "passed on to the routing"  # noqa: PLR2004
        yield Finding(
            f"A handshake with Origin: {FOREIGN} is {reached}.",
            "Wrap the websocket application in AllowedHostsOriginValidator, from "
            "channels.security.websocket.",
        )


@check(
    "W085",
    "Migrations are not applied",
    row=53,
    needs=Needs.SERVED,
    why="Code that is newer than its database answers with 500 wherever a column is "
    "missing. runserver says so at its start; servers do not.",
    links=("https://docs.djangoproject.com/en/stable/topics/migrations/",),
    example="$ djasgi check --env production --probe",
)
def unapplied_migrations(context: Context) -> Iterator[Finding]:
    from django.db import DatabaseError, connections
    from django.db.migrations.executor import MigrationExecutor

    for alias in connections:
        connection = connections[alias]
        if not _exists(connection):
            continue
        try:
            executor = MigrationExecutor(connection)
            pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
        except (DatabaseError, OSError, ImportError, ValueError):
            continue  # another fault, which the project's own log tells better
        finally:
            connection.close()
        if pending:
            names = [f"{m.app_label}.{m.name}" for m, _ in pending]
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""  # noqa: PLR2004
            yield Finding(
                f"{len(names)} of the database {alias!r}: {', '.join(names[:3])}{more}.",
                "Run: djasgi manage migrate",
            )


def _exists(connection: Any) -> bool:
    """Whether connecting would make nothing: SQLite creates a file that is missing."""
    if connection.vendor != "sqlite":
        return bool(connection.vendor != "unknown")
    name = str(connection.settings_dict.get("NAME") or "")
    return Path(name).is_file()


@check(
    "W086",
    "A static file is not found",
    row=24,
    needs=Needs.SERVED,
    why="Something in the application is there to serve static files, and the style sheet "
    "of the admin is not found: collectstatic has not run, or STATIC_URL is another.",
    links=("https://docs.djangoproject.com/en/stable/howto/static-files/deployment/",),
    example='MIDDLEWARE = ["whitenoise.middleware.WhiteNoiseMiddleware", …]\n'
    "and an empty STATIC_ROOT",
)
def static_missing(context: Context) -> Iterator[Finding]:
    served, settings = context.served, context.settings
    if served is None or served.failure or not context.deploy:
        return
    if "django.contrib.admin" not in settings.INSTALLED_APPS:
        return
    middleware = " ".join(settings.MIDDLEWARE or ()).lower()
    if "whitenoise" not in middleware and "servestatic" not in middleware:
        return
    url = static_url()
    if url is None:
        return
    headers = {"Host": _host(context), "X-Forwarded-Proto": "https"}
    answer = served.get(url, headers)
    if answer is not None and answer.status == 404:  # noqa: PLR2004
        yield Finding(
            f"GET {url} is answered with 404.",
            "Run: djasgi manage collectstatic",
            context.setting("STATIC_ROOT"),
        )


def static_url() -> str | None:
    """The path of the admin's style sheet; None if it is not served from here."""
    from django.contrib.staticfiles.storage import staticfiles_storage

    try:
        url = staticfiles_storage.url("admin/css/base.css")
    except (ValueError, OSError):
        return None  # no manifest: E087
    return str(url) if url.startswith("/") and not url.startswith("//") else None


@check(
    "E087",
    "The manifest of the static files is missing",
    row=25,
    deploy=True,
    needs=Needs.SERVED,
    why="A manifest storage looks every static file up in staticfiles.json, which "
    "collectstatic writes. Without it each template that names one is a 500. Said with "
    "--probe only: where the check runs in CI, collectstatic has often not run yet.",
    links=(
        "https://docs.djangoproject.com/en/stable/ref/contrib/staticfiles/#manifeststaticfilesstorage",
    ),
    example='STORAGES = {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.'
    'ManifestStaticFilesStorage"}, …}',
)
def manifest_missing(context: Context) -> Iterator[Finding]:
    if "django.contrib.staticfiles" not in context.settings.INSTALLED_APPS:
        return
    if context.settings.DEBUG:
        return
    from django.contrib.staticfiles.storage import (
        ManifestFilesMixin,
        staticfiles_storage,
    )

    storage: Any = staticfiles_storage
    strict = getattr(storage, "manifest_strict", False)
    if not isinstance(storage, ManifestFilesMixin) or not strict:
        return
    if storage.read_manifest() is None:
        yield Finding(
            f"{storage.manifest_name} is not in {context.settings.STATIC_ROOT}.",
            "Run: djasgi manage collectstatic",
            context.setting("STORAGES"),
        )


DEFAULT_POOL = 4
"""Connections of a psycopg_pool.ConnectionPool without max_size."""


@check(
    "E088",
    "The pools may ask for more connections than the database has",
    row=3,
    needs=Needs.SERVED,
    why="Each worker has a pool of its own, which grows to max_size. When the workers "
    "together ask for more than max_connections of PostgreSQL, requests fail with "
    '"remaining connection slots are reserved".',
    links=("https://docs.djangoproject.com/en/stable/ref/databases/#connection-pool",),
    example='OPTIONS = {"pool": {"max_size": 50}}\n\n$ djasgi check --probe --workers 4',
)
def too_many_connections(context: Context) -> Iterator[Finding]:
    from django.db import DatabaseError, connections

    workers = context.plan.options.workers if context.plan else 1
    if not isinstance(workers, int):
        return
    for alias in connections:
        connection = connections[alias]
        pool = (connection.settings_dict.get("OPTIONS") or {}).get("pool")
        if connection.vendor != "postgresql" or not pool:
            continue
        try:
            with connection.cursor() as cursor:
                cursor.execute("SHOW max_connections")
                limit = int(cursor.fetchone()[0])
        except (DatabaseError, OSError, TypeError, ValueError):
            continue
        finally:
            connection.close()
        size = (
            pool.get("max_size", DEFAULT_POOL)
            if isinstance(pool, dict)
            else DEFAULT_POOL
        )
        wanted = max(workers, 1) * int(size or DEFAULT_POOL)
        if wanted > limit:
            yield Finding(
                f"{workers} workers with pools of {size} may open {wanted} connections to "
                f"{alias!r}, which allows {limit}.",
                f"Set max_size to {max(limit // max(workers, 1) - 1, 1)} or less.",
                context.setting("DATABASES", "max_size", "pool"),
            )
