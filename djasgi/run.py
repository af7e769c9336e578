"""The composition root: a plan becomes sockets, workers, an application and a server."""

from __future__ import annotations

import gc
import importlib.util
import ipaddress
import logging
import os
import socket
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from djasgi import logs, output, servers
from djasgi.duty import Duty
from djasgi.errors import ExitCode, UsageError
from djasgi.modules import is_surely_missing
from djasgi.options import OPTIONS, SERVERS
from djasgi.plan import LaunchPlan
from djasgi.servers.base import Refused
from djasgi.supervisor.master import supervise
from djasgi.supervisor.sockets import (
    Listeners,
    occupy_standard_descriptors,
    open_listeners,
)
from djasgi.supervisor.worker import Channel, run_in_process

if TYPE_CHECKING:
    from djasgi.tls import Tls  # not at run time: `ssl` is only for those who ask

logger = logging.getLogger("djasgi")


def vet(plan: LaunchPlan) -> None:
    """Refuse, before anything starts, what the chosen server cannot do.

    Raises UsageError: an option is never accepted and ignored.
    """
    server = plan.options.server
    support = servers.support(server)
    for name, value in plan.values.items():
        if value.asked and isinstance(support[name], Refused):
            able = [
                other
                for other in SERVERS
                if not isinstance(servers.support(other)[name], Refused)
            ]
            flag = OPTIONS[name].flag
            origin = "" if value.origin == flag else f" ({value.origin})"
            raise UsageError(
                f"{server} cannot do {flag}{origin}.",
                hint=f"{' and '.join(able)} can:  djasgi serve --server {able[0]}",
            )
    if plan.options.native:
        servers.load(server).check_native(plan.options.native)
    if plan.options.loop == "uvloop" and not importlib.util.find_spec("uvloop"):
        raise UsageError(
            f"uvloop is not installed ({plan.values['loop'].origin}).",
            hint="Install it: pip install uvloop, or use --loop auto.",
        )


def serve(plan: LaunchPlan) -> int:
    """Serve until told to stop; returns the exit code.

    Raises DjasgiError for what can be refused before a worker exists.
    """
    started = time.monotonic()
    occupy_standard_descriptors()
    vet(plan)
    color = logs.use_color(sys.stdout, os.environ)
    terminal = _is_terminal()
    logs.configure(plan.options, color=color, terminal=terminal)
    for warning in (*plan.warnings, *_not_taken(plan)):
        logger.warning(warning)
    tls = _load_tls(plan)
    workers = _worker_count(plan)
    with open_listeners(
        plan.binds,
        uds_mode=plan.options.uds_mode,
        backlog=plan.options.backlog,
        scheme="https" if tls else "http",
    ) as listeners:
        duty = Duty(plan, listeners, tls, color=color, terminal=terminal)
        announcement = _Announcement(duty, listeners, workers, started)
        arguments: dict[str, Any] = {
            "graceful_timeout": plan.options.graceful_timeout,
            "on_ready": announcement,
            "on_failure": output.report,
        }
        if workers > 1:
            # For all at once. A single worker does it by itself: what is imported
            # before a fork is copied when it is used after it.
            import djasgi.serving  # noqa: F401
        worker = partial(_serve_worker, duty)
        if workers == 0:
            code = run_in_process(worker, listeners, **arguments)
        else:
            code = supervise(worker, listeners, workers=workers, **arguments)
    if code == ExitCode.STOPPED:
        logger.info("stopped")
    return code


def _serve_worker(duty: Duty, number: int, channel: Channel) -> None:
    from djasgi.serving import serve_worker

    serve_worker(duty, number, channel)


def _load_tls(plan: LaunchPlan) -> Tls | None:
    if not any(v.asked for name, v in plan.values.items() if name.startswith("ssl_")):
        return None
    from djasgi.tls import load_tls

    return load_tls(plan.options)


def _is_terminal() -> bool:
    try:
        return sys.stdout.isatty()
    except (AttributeError, ValueError):  # closed before djasgi was started
        return False


def _worker_count(plan: LaunchPlan) -> int:
    workers = plan.options.workers
    if workers != "auto":
        return workers
    from djasgi.supervisor.resources import worker_count

    count, arithmetic = worker_count()
    logger.info("workers: %s", arithmetic)
    return count


def _not_taken(plan: LaunchPlan) -> list[str]:
    return [
        f"{other.path} was not taken: {other.reason}."
        for other in plan.application.rejected
    ]


class _Announcement:
    """Says, once, what is served, when the first workers are ready."""

    def __init__(
        self, duty: Duty, listeners: Listeners, workers: int, started: float
    ) -> None:
        self.duty = duty
        self.workers = workers
        self.started = started
        # Now: in this process an engine may take the sockets over before it is ready.
        self.addresses = listeners.addresses
        self.exposed = not all(map(_is_loopback, listeners.sockets))

    def __call__(self, facts: dict[str, Any]) -> None:
        from importlib.metadata import version

        seconds = time.monotonic() - self.started
        plan = self.duty.plan
        debug = bool(facts.get("debug"))
        release = version(plan.options.server)
        if self.duty.terminal and plan.options.log_format == "text":
            print(  # noqa: T201  # the panel is not a log line
                output.panel(
                    plan,
                    self.addresses,
                    release,
                    self.workers,
                    debug=debug,
                    exposed=self.exposed,
                    color=self.duty.color,
                ),
                flush=True,
            )
        else:
            logger.info("listening on %s", ", ".join(self.addresses))
            for label, value, origin in output.summary(plan, release, self.workers):
                logger.info("%s: %s (%s)", label, value, origin)
            if debug:
                notice = output.debug_notice(plan, debug=True, exposed=self.exposed)
                logger.warning(" ".join(notice))
        for note in facts.get("notes", ()):
            logger.warning(note)
        logger.info("ready in %.2f s", seconds)
        gc.freeze()
        gc.enable()


def _is_loopback(sock: socket.socket) -> bool:
    if sock.family == socket.AF_UNIX:
        return True
    return ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback


def manage(plan: LaunchPlan, command: Sequence[str]) -> int:
    """Replace this process by manage.py under the plan's settings and variables.

    Raises UsageError when manage.py assigns other settings than the planned ones, and
    ProjectError when the project has no such settings.
    """
    found = plan.root.manage
    settings = plan.settings
    if settings and is_surely_missing(settings.value, plan.paths):
        from djasgi.failures import missing_settings

        raise missing_settings(plan, settings.value, settings.origin)
    own = found.settings if found and found.assigned else None
    if own and settings and own.value != settings.value:
        raise UsageError(
            f"{own.origin} assigns DJANGO_SETTINGS_MODULE = {own.value}, not "
            f"{settings.value} ({settings.origin}).",
            hint="Use os.environ.setdefault() in manage.py.",
        )
    for warning in plan.warnings:
        output.warn(warning)
    from djasgi.loading import SUPERVISION

    environ = {n: value for n, value in os.environ.items() if n not in SUPERVISION}
    for name, value in plan.variables.items():
        environ[name] = str(value.value)
    if found:
        argv = [sys.executable, str(found.path), *command]
    else:
        path = os.pathsep.join([*map(str, plan.paths), environ.get("PYTHONPATH", "")])
        environ["PYTHONPATH"] = path.rstrip(os.pathsep)
        argv = [sys.executable, "-m", "django", *command]
    sys.stdout.flush()
    os.execve(sys.executable, argv, environ)  # noqa: S606  # there is no shell in it
