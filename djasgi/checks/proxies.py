"""Proxies, HTTPS and prefixes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from djasgi.checks.base import Finding, Needs, check
from djasgi.checks.context import Context
from djasgi.plan import LaunchPlan

HTTPS = "https://docs.djangoproject.com/en/stable/ref/settings/#secure-proxy-ssl-header"
ROUTER_KEEP_ALIVE = 90
"""Seconds that a platform's router keeps an idle connection to the application."""


def _behind_platform(plan: LaunchPlan) -> bool:
    """Whether a platform gives the port: its router is then in front, on no loopback."""
    return plan.values["port"].origin == "PORT" and any(
        bind.family == "tcp" and not _is_loopback(bind.host) for bind in plan.binds
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _trusts_only_this_machine(plan: LaunchPlan) -> bool:
    return all(_is_loopback(host) for host in plan.options.forwarded_allow_ips)


@check(
    "E051",
    "Every request is redirected to itself",
    row=26,
    deploy=True,
    why="SECURE_SSL_REDIRECT redirects what did not come by https. Behind a proxy that "
    "ends TLS, Django knows of https only from the proxy's header; when nobody takes that "
    "header, or not from this proxy, every request looks like http and is redirected to "
    "the address it already has.",
    links=(
        "https://docs.djangoproject.com/en/stable/ref/settings/#secure-ssl-redirect",
        HTTPS,
    ),
    example="SECURE_SSL_REDIRECT = True\n\n"
    "$ PORT=8000 djasgi check --env production   # the router is not trusted",
)
def redirect_loop(context: Context) -> Iterator[Finding]:
    plan, settings = context.plan, context.settings
    if plan is None or not settings.SECURE_SSL_REDIRECT:
        return
    if "django.middleware.security.SecurityMiddleware" not in settings.MIDDLEWARE:
        return
    if settings.SECURE_PROXY_SSL_HEADER or plan.options.ssl_certfile:
        return
    place = context.setting("SECURE_SSL_REDIRECT", True)
    if not plan.options.proxy_headers:
        yield Finding(
            "SECURE_SSL_REDIRECT is on, and with --no-proxy-headers "
            f"({plan.values['proxy_headers'].origin}) no request is ever https.",
            "Take the proxy's headers (--proxy-headers), or set "
            "SECURE_PROXY_SSL_HEADER if your proxy always sets that header.",
            place,
        )
    elif _behind_platform(plan) and _trusts_only_this_machine(plan):
        yield Finding(
            "SECURE_SSL_REDIRECT is on, the platform gives the port (PORT), and its "
            "router is no trusted proxy: no request is ever https.",
            "Trust it: FORWARDED_ALLOW_IPS='*' where only the router can connect, else "
            "its network.",
            place,
        )


@check(
    "W052",
    "Whoever connects may claim any address",
    row=27,
    deploy=True,
    needs=Needs.FILES,
    why="With '*' every peer is a trusted proxy: whoever reaches the port directly chooses "
    "its own client address and can claim https, which defeats rate limits, address "
    "lists, and the meaning of request.is_secure().",
    links=(HTTPS,),
    example="$ djasgi check --deploy --bind 0.0.0.0:8000 --forwarded-allow-ips '*'",
)
def everybody_trusted(context: Context) -> Iterator[Finding]:
    plan = context.plan
    if plan is None or "*" not in plan.options.forwarded_allow_ips:
        return
    if not plan.options.proxy_headers or _behind_platform(plan):
        return
    public = [b for b in plan.binds if b.family == "tcp" and not _is_loopback(b.host)]
    if public:
        origin = plan.values["forwarded_allow_ips"].origin
        yield Finding(
            f"Every peer is trusted ({origin}) on {public[0]}, which others can reach.",
            "Name the proxy's address or network: --forwarded-allow-ips 172.16.0.0/12, "
            "for example, or listen on a unix socket.",
        )


@check(
    "W053",
    "The platform's router is not trusted",
    row=28,
    deploy=True,
    needs=Needs.FILES,
    why="Only proxies on this machine are trusted by default. A platform that gives PORT "
    "puts its router in front, on another machine: every request then seems to come from "
    "the router, by http. Rate limits count all visitors as one, links and redirects are "
    "http.",
    links=(HTTPS,),
    example="$ PORT=8000 djasgi check --deploy",
)
def router_untrusted(context: Context) -> Iterator[Finding]:
    plan = context.plan
    if plan is None or not plan.options.proxy_headers or plan.options.ssl_certfile:
        return
    if _behind_platform(plan) and _trusts_only_this_machine(plan):
        trusted = ", ".join(plan.options.forwarded_allow_ips) or "nobody"
        yield Finding(
            f"The platform gives the port (PORT); trusted are {trusted}: client address "
            "and scheme will be the router's.",
            "Set FORWARDED_ALLOW_IPS='*' where only the router can connect, else its "
            "network.",
        )


@check(
    "W054",
    "The server ignores the headers of the platform's router",
    row=29,
    needs=Needs.FILES,
    why="hypercorn and granian take no X-Forwarded headers by themselves, and have no "
    "option for it. Behind the router of the platform Django sees http and the router's "
    "address, silently.",
    links=(
        "https://hypercorn.readthedocs.io/en/latest/how_to_guides/proxy_fix.html",
        "https://github.com/emmett-framework/granian#proxies-and-forwarded-headers",
    ),
    example="# Procfile\nweb: hypercorn config.asgi:application --bind 0.0.0.0:$PORT",
)
def headers_ignored(context: Context) -> Iterator[Finding]:
    for launch in context.native():
        if launch.kind not in ("Procfile", "render.yaml", "fly.toml"):
            continue
        if launch.server.name not in ("hypercorn", "granian"):
            continue
        words = (b"ProxyFix", b"proxies", b"HTTP_X_FORWARDED_PROTO", b"x-forwarded")
        if any(context.sources.mention(word) for word in words):
            continue
        yield Finding(
            f"{launch.server.name} behind a router, and nothing in the project takes "
            "the router's headers.",
            "Start it with djasgi serve, or wrap the application in the server's own "
            "middleware for proxies.",
            context.launch_place(launch),
        )


@check(
    "W055",
    "The router writes into connections that are being closed",
    row=30,
    needs=Needs.FILES,
    why="A router keeps idle connections to the application, up to 90 seconds. A server "
    "that closes them earlier (uvicorn and hypercorn after 5 seconds) will close one just "
    "as a request is on its way: a 502 now and then that no log explains.",
    links=(
        "https://devcenter.heroku.com/articles/http-routing#keepalives",
        "https://uvicorn.dev/settings/#timeouts",
    ),
    example="# Procfile\nweb: uvicorn config.asgi:application --host 0.0.0.0 --port $PORT",
)
def short_keep_alive(context: Context) -> Iterator[Finding]:
    flags = {"uvicorn": "--timeout-keep-alive", "hypercorn": "--keep-alive"}
    for launch in context.native():
        flag = flags.get(launch.server.name)
        if (
            launch.kind != "Procfile"
            or flag is None
            or launch.server.has("--config", "-c")
        ):
            continue
        seconds = launch.server.number(flag)
        if launch.server.has(flag) and seconds is None:
            continue
        if (5 if seconds is None else seconds) < ROUTER_KEEP_ALIVE:
            kept = "5 seconds by default" if seconds is None else f"{seconds:g} seconds"
            yield Finding(
                f"{launch.server.name} closes idle connections after {kept}.",
                f"Add {flag} 95, or start it with djasgi serve, which keeps them 95 "
                "seconds.",
                context.launch_place(launch),
            )
    plan = context.plan
    if plan is None or not context.deploy or not _behind_platform(plan):
        return
    if plan.options.keep_alive < ROUTER_KEEP_ALIVE:
        yield Finding(
            f"Idle connections are closed after {plan.options.keep_alive:g} seconds "
            f"({plan.values['keep_alive'].origin}).",
            "Leave it at the default of 95 seconds.",
        )


@check(
    "W056",
    "Two prefixes, or one with a slash too many",
    row=49,
    needs=Needs.SETTINGS,
    why="Django puts FORCE_SCRIPT_NAME in front of every link, whatever the server says "
    "of its root path. A slash at the end makes links such as //api/, which are another "
    "host's; a prefix that is not the one of --root-path makes links to pages that are "
    "not there.",
    links=("https://docs.djangoproject.com/en/stable/ref/settings/#force-script-name",),
    example='FORCE_SCRIPT_NAME = "/shop/"',
)
def prefixes(context: Context) -> Iterator[Finding]:
    name = context.settings.FORCE_SCRIPT_NAME
    if not isinstance(name, str) or not name:
        return
    place = context.setting("FORCE_SCRIPT_NAME")
    if name.endswith("/"):
        yield Finding(
            f"FORCE_SCRIPT_NAME is {name!r}: every link gets two slashes.",
            f"Write {name.rstrip('/')!r}.",
            place,
        )
    root = context.plan.options.root_path if context.plan else ""
    if root and root.rstrip("/") != name.rstrip("/"):
        yield Finding(
            f"FORCE_SCRIPT_NAME is {name!r}, --root-path is {root!r}.",
            "Keep --root-path and remove FORCE_SCRIPT_NAME.",
            place,
        )
