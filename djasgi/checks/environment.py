"""Settings and environment."""

from __future__ import annotations

from collections.abc import Iterator

from djasgi.checks.base import Finding, Needs, Place, check
from djasgi.checks.context import Context
from djasgi.environments import looks_like_development

DEPLOYMENT = "https://docs.djangoproject.com/en/stable/howto/deployment/checklist/"


@check(
    "E006",
    "Production would run with development settings",
    row=10,
    deploy=True,
    why="With DEBUG on, Django shows settings, source code and local variables to "
    "whoever causes an error, and keeps every query in memory. It comes about quietly: "
    "asgi.py falls back to the settings of the developer's machine when nobody has set "
    "DJANGO_SETTINGS_MODULE. djasgi serve refuses an environment named production in "
    "this state.",
    links=(f"{DEPLOYMENT}#debug",),
    example="# asgi.py\n"
    'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings.local")\n\n'
    "$ djasgi check --deploy",
)
def development_settings(context: Context) -> Iterator[Finding]:
    plan, settings = context.plan, context.settings
    chosen = plan.settings if plan else None
    if settings.DEBUG:
        module = context.settings_module or "the settings"
        origin = f" (from {chosen.origin})" if chosen else ""
        yield Finding(
            f"DEBUG is on in {module}{origin}.",
            "Set DEBUG = False there, or serve the settings of production: "
            "djasgi serve --env production",
            context.setting("DEBUG", True),
            replaces=("security.W018",),
        )
    elif plan and chosen and looks_like_development(chosen.value):
        defaults = (
            plan.application.settings,
            plan.root.manage and plan.root.manage.settings,
        )
        if chosen.origin in {found.origin for found in defaults if found}:
            yield Finding(
                f"{chosen.value} is what {chosen.origin} falls back to: nobody chose it.",
                "Choose: djasgi serve --env production, or --settings MODULE.",
            )


@check(
    "E007",
    "Django's guard against synchronous calls is switched off",
    row=21,
    needs=Needs.FILES,
    why="DJANGO_ALLOW_ASYNC_UNSAFE lets synchronous database code run on the event loop. "
    "Connections are then used by several requests at once: transactions mix, results "
    "reach the wrong request, and the loop stands still during every query. It is meant "
    "for notebooks.",
    links=(
        "https://docs.djangoproject.com/en/stable/topics/async/#envvar-DJANGO_ALLOW_ASYNC_UNSAFE",
    ),
    example="# Dockerfile\nENV DJANGO_ALLOW_ASYNC_UNSAFE=true",
)
def async_unsafe(context: Context) -> Iterator[Finding]:
    name = "DJANGO_ALLOW_ASYNC_UNSAFE"
    for path, text in context.deployments.texts.items():
        for number, line in enumerate(text.splitlines(), start=1):
            before, _, after = line.partition(name)
            if (
                not after
                or before.lstrip().startswith("#")
                or after[:1] not in "= :\"'"
            ):
                continue
            value = after.strip(" =:\"'").lower()
            if value.startswith(("0", "false", "no", "off")):
                continue
            yield Finding(
                f"{context.shown(path)} sets {name} for what it starts.",
                "Remove it, and use the asynchronous methods, or sync_to_async.",
                Place(path, number, line.strip()),
            )


@check(
    "W008",
    "Every host name is accepted",
    row=32,
    deploy=True,
    needs=Needs.SETTINGS,
    why="With '*' in ALLOWED_HOSTS the Host header, which any client writes, goes into "
    "links of password mails, redirects and cached pages. It is often set because a "
    "health check was refused: djasgi's --health-path and --ready-path answer before "
    "Django looks at the host.",
    links=("https://docs.djangoproject.com/en/stable/ref/settings/#allowed-hosts",),
    example='ALLOWED_HOSTS = ["*"]',
)
def any_host(context: Context) -> Iterator[Finding]:
    if "*" in (context.settings.ALLOWED_HOSTS or ()):
        yield Finding(
            "ALLOWED_HOSTS contains '*'.",
            "List your domains; for probes use --health-path and --ready-path.",
            context.setting("ALLOWED_HOSTS", "*"),
        )


_TOOLS = {
    "debug_toolbar.middleware.DebugToolbarMiddleware": "the debug toolbar",
    "django_browser_reload.middleware.BrowserReloadMiddleware": "browser reload",
    "silk.middleware.SilkyMiddleware": "silk, which stores every request and its body",
}


@check(
    "W009",
    "A development tool runs in production",
    row=46,
    deploy=True,
    needs=Needs.SETTINGS,
    why="Each of these sits in front of every request. With DEBUG off the toolbar and "
    "browser reload show nothing and still cost a call, or a thread; browser reload holds "
    "an event stream open for each tab; silk writes requests, bodies included, to the "
    "database.",
    links=(
        "https://django-debug-toolbar.readthedocs.io/en/latest/installation.html",
        "https://github.com/adamchainz/django-browser-reload#installation",
    ),
    example='MIDDLEWARE = ["debug_toolbar.middleware.DebugToolbarMiddleware", …]',
)
def development_tools(context: Context) -> Iterator[Finding]:
    for path in context.settings.MIDDLEWARE or ():
        if path in _TOOLS:
            yield Finding(
                f"MIDDLEWARE contains {_TOOLS[path]}.",
                "Add it in the development settings only.",
                context.setting("MIDDLEWARE", path),
            )


@check(
    "W010",
    "LOGGING silences the log of the server",
    row=47,
    why="Django applies LOGGING while the server imports the application. Unless it says "
    "disable_existing_loggers: False, every logger that exists by then is switched off, "
    "and the server has made its own: errors and the access log disappear. djasgi "
    "configures its loggers itself, so this is said only where a file starts the native "
    "server.",
    links=(
        "https://docs.djangoproject.com/en/stable/topics/logging/#configuring-logging",
    ),
    example='LOGGING = {"version": 1, "handlers": {…}}   # no disable_existing_loggers\n'
    "# Procfile\nweb: uvicorn config.asgi:application --host 0.0.0.0 --port $PORT",
)
def silenced_server(context: Context) -> Iterator[Finding]:
    config = context.settings.LOGGING or {}
    if context.settings.LOGGING_CONFIG != "logging.config.dictConfig":
        return
    if not config or not config.get("disable_existing_loggers", True):
        return
    if config.get("incremental"):
        return
    loggers = set(config.get("loggers", ()))
    for launch in context.native():
        name = launch.server.name
        if name == "uvicorn" and not any(x.partition(".")[0] == name for x in loggers):
            yield Finding(
                f"LOGGING disables existing loggers and names none of {name}.",
                'Add "disable_existing_loggers": False to LOGGING.',
                context.launch_place(launch),
            )
            return
