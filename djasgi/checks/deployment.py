"""Deployment files that start the wrong thing, or start it wrongly."""

from __future__ import annotations

from collections.abc import Iterator

from djasgi.checks.base import Finding, Needs, check
from djasgi.checks.context import Context
from djasgi.deployments.launch import Launch

LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


@check(
    "E071",
    "The server does not speak ASGI to the application",
    row=41,
    needs=Needs.FILES,
    why="gunicorn speaks WSGI unless it is told to use an ASGI worker, and granian its own "
    "RSGI unless it is told --interface asgi. The server starts, reports that it listens, "
    "and answers every request with a 500.",
    links=(
        "https://docs.djangoproject.com/en/stable/howto/deployment/asgi/",
        "https://github.com/emmett-framework/granian#options",
    ),
    example="# Procfile\nweb: gunicorn config.asgi:application",
)
def wrong_interface(context: Context) -> Iterator[Finding]:
    for launch in context.launches:
        server = launch.server
        module = (server.target or "").partition(":")[0]
        if module.rpartition(".")[2] != "asgi":
            continue
        if server.name == "gunicorn":
            if server.value("-k", "--worker-class") or server.has("-c", "--config"):
                continue
            if "GUNICORN_CMD_ARGS" in launch.variables or _has_gunicorn_file(context):
                continue
            if not launch.environ_known and launch.kind != "Procfile":
                continue  # it may be in a file of variables
            yield Finding(
                f"gunicorn starts {server.target} with a WSGI worker.",
                "Start it with djasgi serve, or add -k asgi (gunicorn 25 or newer).",
                context.launch_place(launch),
            )
        elif server.name == "granian":
            if server.has("--interface") or "GRANIAN_INTERFACE" in launch.variables:
                continue
            if not launch.environ_known and launch.kind != "Procfile":
                continue
            yield Finding(
                f"granian starts {server.target} with its default interface, RSGI.",
                "Add --interface asgi, or start it with djasgi serve.",
                context.launch_place(launch),
            )


def _has_gunicorn_file(context: Context) -> bool:
    """Whether there is a gunicorn.conf.py, which gunicorn reads by itself."""
    folders = {*context.paths, context.repository}
    return any((folder / "gunicorn.conf.py").is_file() for folder in folders)


@check(
    "W072",
    "A worker class that uvicorn has given up",
    row=42,
    needs=Needs.FILES,
    why="uvicorn.workers is deprecated and to be removed: an update of uvicorn then keeps "
    "the site from starting. It never passed on gunicorn's timeouts either.",
    links=("https://uvicorn.dev/deployment/#gunicorn",),
    example="# Procfile\nweb: gunicorn config.asgi:application "
    "-k uvicorn.workers.UvicornWorker",
)
def deprecated_worker(context: Context) -> Iterator[Finding]:
    for launch in context.launches:
        worker = launch.server.value("-k", "--worker-class") or ""
        if launch.server.name == "gunicorn" and worker.startswith("uvicorn.workers."):
            yield Finding(
                f"gunicorn uses {worker}.",
                "Start it with djasgi serve, or install uvicorn-worker and use "
                "uvicorn_worker.UvicornWorker.",
                context.launch_place(launch),
            )


@check(
    "E073",
    "Nobody can reach the address that it listens on",
    row=43,
    needs=Needs.FILES,
    why="A platform tells the port in PORT and connects from outside; a container is "
    "reached by its own address. uvicorn, hypercorn and daphne listen on 127.0.0.1 unless "
    'they are told otherwise, and read no PORT: the deploy fails with "failed to bind", '
    "or the port is open and every connection is refused.",
    links=(
        "https://devcenter.heroku.com/articles/dynos#web-dynos",
        "https://docs.docker.com/engine/network/",
    ),
    example='# Dockerfile\nCMD ["uvicorn", "config.asgi:application"]',
)
def unreachable(context: Context) -> Iterator[Finding]:
    for launch in context.launches:
        if launch.kind == "systemd" or launch.facts.get("network_mode") == "host":
            continue
        problem = _address_problem(context, launch)
        if problem:
            text, mend = problem
            yield Finding(text, mend, context.launch_place(launch))


def _address_problem(context: Context, launch: Launch) -> tuple[str, str] | None:
    server, name = launch.server, launch.server.name
    if name in ("djasgi", "runserver", "gunicorn", "granian"):
        return _own_address_problem(context, launch) if name == "djasgi" else None
    if name == "uvicorn":
        if server.has("--uds", "--fd") or "UVICORN_HOST" in launch.variables:
            return None
        host, port = server.value("--host"), server.value("--port")
        if host is None and not launch.environ_known and launch.kind != "Procfile":
            return None
        port = port or launch.variables.get("UVICORN_PORT")
        mend = "--host 0.0.0.0 --port $PORT"
    elif name == "hypercorn":
        if server.has("-c", "--config"):
            return None
        bind = server.value("-b", "--bind")
        if bind and bind.startswith(("unix:", "fd:")):
            return None
        host, _, port = (bind or "").rpartition(":")
        mend = "--bind 0.0.0.0:$PORT"
    elif name == "daphne":
        if server.has("-u", "--unix-socket", "-e", "--endpoint", "--fd"):
            return None
        host, port = server.value("-b", "--bind"), server.value("-p", "--port")
        mend = "-b 0.0.0.0 -p $PORT"
    else:
        return None
    if not host or host in LOOPBACK:
        asked = f"{name} listens on {host}" if host else f"{name} listens on 127.0.0.1"
        if launch.kind != "Procfile":
            return (
                f"{asked} inside the container.",
                f"Use {mend.replace('$PORT', '8000')}.",
            )
        return f"{asked}.", f"Use {mend}, or djasgi serve, which takes PORT."
    web = launch.kind == "Procfile" and launch.facts.get("process") == "web"
    if web and (port is None or port.isdecimal()):
        fixed = f"port {port}" if port else "its default port"
        return (
            f"{name} listens on {fixed}; the platform gives another in PORT.",
            f"Use {mend}, or djasgi serve, which takes PORT.",
        )
    return None


def _own_address_problem(context: Context, launch: Launch) -> tuple[str, str] | None:
    """djasgi takes PORT; without it, it too listens on this machine only."""
    if launch.kind != "compose" or not launch.facts.get("ports"):
        return None
    given = ("--bind", "-b", "--host", "--uds", "--fd", "--env")
    variables = {"PORT", "DJASGI_BIND", "DJASGI_HOST"} & set(launch.variables)
    if launch.server.has(*given) or variables or not launch.environ_known:
        return None
    plan = context.plan
    if plan is None or any(plan.values[n].asked for n in ("bind", "host", "uds", "fd")):
        return None
    if any("PORT" in text for path, text in context.deployments.texts.items()):
        return None
    return (
        "djasgi listens on 127.0.0.1 inside the container, and ports are published.",
        "Set PORT in environment, or add --bind 0.0.0.0:8000.",
    )


@check(
    "W074",
    "The stop signal never reaches the server",
    row=44,
    needs=Needs.FILES,
    why="The container's first process gets the stop signal. If that is a shell that waits "
    "for the server, it passes nothing on: the server runs on until it is killed, with "
    "every request in flight. `exec` puts the server in the place of the shell.",
    links=(
        "https://docs.docker.com/reference/dockerfile/#shell-form-entrypoint-example",
    ),
    example="# start.sh, the CMD of the Dockerfile\n"
    "python manage.py migrate\nuvicorn config.asgi:application --host 0.0.0.0",
)
def signal_lost(context: Context) -> Iterator[Finding]:
    for launch in context.launches:
        if not launch.shell or "shell" in launch.facts:
            continue
        if launch.kind not in ("Dockerfile", "compose"):
            continue
        caller = ""
        if launch.through:
            path, line = launch.through[0]
            caller = f" ({context.shown(path)}:{line} runs this script)"
        yield Finding(
            f"A shell starts {launch.server.name} and stays in between{caller}.",
            "Write exec before the command, and let it be the last.",
            context.launch_place(launch),
            diff=_with_exec(launch),
        )


def _with_exec(launch: Launch) -> str:
    line = launch.source.strip()
    if not launch.through or not line or line.endswith("\\"):
        return ""
    if any(mark in line for mark in (";", "&", "|", "=", "  ")):
        return ""  # "  ": joined from several lines
    return f"- {line}\n+ exec {line}"


@check(
    "E075",
    "A development server in production",
    row=45,
    needs=Needs.FILES,
    why="runserver is single-process, leaks, and is audited by nobody (Django says so "
    "itself). --reload watches every file and restarts on a change, one request after the "
    "other fails, and it starts one worker only.",
    links=("https://docs.djangoproject.com/en/stable/ref/django-admin/#runserver",),
    example="# Procfile\nweb: python manage.py runserver 0.0.0.0:$PORT",
)
def development_server(context: Context) -> Iterator[Finding]:
    for launch in context.launches:
        if launch.server.name == "runserver":
            yield Finding(
                "runserver is started by a file that is not for development.",
                "Use djasgi serve --env production.",
                context.launch_place(launch),
            )
        elif launch.native and launch.server.has("--reload"):
            yield Finding(
                f"{launch.server.name} is started with --reload by a file that is not "
                "for development.",
                "Remove --reload.",
                context.launch_place(launch),
            )
