"""The composition root: a plan becomes sockets, workers, an application and a server."""

from __future__ import annotations

import gc
import importlib.util
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from djasgi import __version__, compatibility, logs, output, servers
from djasgi.announcement import Announcement
from djasgi.duty import Duty
from djasgi.errors import DjasgiError, ExitCode, UsageError
from djasgi.kinds import Bind
from djasgi.options import OPTIONS, SERVERS, Options
from djasgi.plan import LaunchPlan
from djasgi.servers.base import Refused
from djasgi.supervisor import handover
from djasgi.supervisor.descriptors import occupy_standard_descriptors
from djasgi.supervisor.handover import Inherited
from djasgi.supervisor.job import Job, Policy, Preloaded
from djasgi.supervisor.master import supervise
from djasgi.supervisor.messages import as_error
from djasgi.supervisor.service import Service
from djasgi.supervisor.sockets import Listeners, open_listeners
from djasgi.supervisor.worker import Channel, run_in_process

if TYPE_CHECKING:
    from djasgi.supervisor.pidfile import PidFile
    from djasgi.tls import Tls  # not at run time: `ssl` is only for those who ask

logger = logging.getLogger("djasgi")


def vet(plan: LaunchPlan) -> None:
    """Refuse, before anything starts, what the chosen server cannot do.

    Raises UsageError: an option is never accepted and ignored.
    """
    server = plan.options.server
    support = servers.support(server)
    for name, value in plan.values.items():
        wanted = value.asked and value.value != OPTIONS[name].default
        if wanted and isinstance(support[name], Refused):
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
    if plan.values["handler"].asked:
        compatibility.handler(plan)
    if plan.options.loop == "uvloop" and not importlib.util.find_spec("uvloop"):
        raise UsageError(
            f"uvloop is not installed ({plan.values['loop'].origin}).",
            hint="Install it: pip install uvloop, or use --loop auto.",
        )


def serve(resolve: Callable[[], LaunchPlan]) -> int:
    """Serve the plan that `resolve` makes until told to stop; returns the exit code.

    Raises DjasgiError for what can be refused before a worker exists. In a process that
    was started by a reload it only tries whether the new plan can be served, and after
    it, it goes on with the workers of the old one.
    """
    inherited = handover.inherited()
    if inherited is None:
        return _start(resolve())
    if inherited.checking:
        return _check(resolve(), inherited)
    return _resume(resolve, inherited)


def _start(plan: LaunchPlan) -> int:
    started = time.monotonic()
    occupy_standard_descriptors()
    vet(plan)
    color, terminal = _configure_logs(plan)
    tls = _load_tls(plan)
    workers = _worker_count(plan)
    with _open_listeners(plan, tls) as listeners:
        duty = Duty(plan, listeners, tls, color=color, terminal=terminal)
        announcement = Announcement(duty, listeners, workers, started)
        if workers == 0:
            code = _serve_here(duty, announcement)
        else:
            code = supervise(
                _job(duty),
                listeners,
                _policy(plan, workers),
                on_ready=announcement,
                on_failure=output.report,
                services=_services(_facts(plan), _pid_file(plan)),
                keep=_keep(plan, color=color, terminal=terminal),
            )
    return _ended(code)


SUPERVISED = (
    "preload",
    "boot_timeout",
    "hang_timeout",
    "max_requests",
    "max_requests_jitter",
    "max_worker_memory",
    "max_worker_lifetime",
)
"""Options that only a supervisor can fulfil."""


def _serve_here(duty: Duty, announcement: Announcement) -> int:
    """Serve in this process. Raises UsageError for what needs a supervisor."""
    plan = duty.plan
    for name in SUPERVISED:
        value = plan.values[name]
        if value.asked and value.origin == OPTIONS[name].flag:
            raise UsageError(
                f"{value.origin} and --workers 0 contradict each other.",
                hint="Without a supervisor nobody replaces a worker: use --workers 1.",
            )
        if value.asked:
            logger.info("%s has no effect with --workers 0", value.origin)
    from djasgi.supervisor.notify import Notify

    notify = Notify(os.environ)

    def ready(facts: dict[str, Any]) -> None:
        announcement(facts)
        notify.ready(0)

    pid_file = _pid_file(plan)
    try:
        return run_in_process(
            partial(_serve_worker, duty),
            duty.listeners,
            graceful_timeout=plan.options.graceful_timeout,
            drain_delay=plan.options.drain_delay,
            on_ready=ready,
            on_failure=output.report,
            on_stop=notify.stopping,
            on_beat=notify.beat,
        )
    finally:
        if pid_file is not None:
            pid_file.close()


def _check(plan: LaunchPlan, inherited: Inherited) -> int:
    """Raise DjasgiError for what would keep `plan` from being served."""
    vet(plan)
    tls = _load_tls(plan)
    if plan.options.workers == 0:
        raise UsageError(
            f"--workers 0 ({plan.values['workers'].origin}) cannot be reloaded to.",
            hint="Restart djasgi instead.",
        )
    known = {Bind(**state["asked"]) for state in inherited.listeners}
    binds = [bind for bind in plan.binds if bind not in known]
    with _open_listeners(plan.replaced(binds=tuple(binds)), tls):
        return ExitCode.STOPPED


def _resume(resolve: Callable[[], LaunchPlan], inherited: Inherited) -> int:
    """Go on as the supervisor of what is inherited, with the new plan if it can be."""
    from djasgi.supervisor import pidfile

    keep = inherited.keep
    color, terminal = keep["color"], keep["terminal"]
    logs.configure(
        Options(log_level=keep["log_level"], log_format=keep["log_format"]),
        color=color,
        terminal=terminal,
    )
    refused: DjasgiError | None = None
    pid_file: PidFile | None = None
    try:
        plan = resolve()
        vet(plan)
        tls = _load_tls(plan)
        policy = _policy(plan, _worker_count(plan))
        pid_file = _pid_file(plan, inherited)
        listeners = _open_listeners(plan, tls, inherited.listeners)
    except Exception as error:  # noqa: BLE001  # there are workers, and they serve
        refused = as_error(error)
        job = Job(partial(_refuse, refused))
        policy = Policy(**keep["policy"])
        pid_file = pidfile.revert(pid_file, inherited.pid_file)
        services = _services(inherited.facts, pid_file, inherited)
        listeners = Listeners.revived(inherited.listeners)
    else:
        pidfile.commit(pid_file, inherited.pid_file)
        color, terminal = _configure_logs(plan)
        duty = Duty(plan, listeners, tls, color=color, terminal=terminal)
        job = _job(duty)
        keep = _keep(plan, color=color, terminal=terminal)
        services = _services(_facts(plan), pid_file, inherited)
    gc.enable()
    with listeners:
        code = supervise(
            job,
            listeners,
            policy,
            on_ready=lambda facts: None,
            on_failure=output.report,
            services=services,
            inherited=inherited,
            refused=refused,
            keep=keep,
        )
    return _ended(code)


def _refuse(error: DjasgiError, number: int, channel: Channel) -> None:
    raise error


def _ended(code: int) -> int:
    if code == ExitCode.STOPPED:
        logger.info("stopped")
    return code


def _job(duty: Duty) -> Job:
    return Job(
        partial(_serve_worker, duty),
        load=partial(_preload, duty),
        preload=cast("Any", duty.plan.options.preload),
    )


def _serve_worker(duty: Duty, number: int, channel: Channel) -> None:
    from djasgi.serving import serve_worker

    duty.listeners.leave()
    serve_worker(duty, number, channel)


def _preload(duty: Duty, reloading: bool) -> Preloaded:
    from djasgi.serving import preload

    duty.listeners.leave()
    return preload(duty, reloading)


def _policy(plan: LaunchPlan, workers: int) -> Policy:
    options = plan.options
    return Policy(
        workers=workers,
        graceful_timeout=options.graceful_timeout,
        boot_timeout=options.boot_timeout,
        hang_timeout=options.hang_timeout,
        drain_delay=options.drain_delay,
    )


def _keep(plan: LaunchPlan, *, color: bool, terminal: bool) -> dict[str, Any]:
    """What a supervisor needs whose new plan is refused."""
    return {
        "color": color,
        "terminal": terminal,
        "log_level": plan.options.log_level,
        "log_format": plan.options.log_format,
        "policy": vars(_policy(plan, 1)),
    }


def _pid_file(plan: LaunchPlan, inherited: Inherited | None = None) -> PidFile | None:
    """The pid file of the plan, written. Raises ListenError."""
    path = plan.options.pid_file
    if path is None:
        return None
    from djasgi.supervisor.pidfile import PidFile

    return PidFile(path, inherited=inherited is not None and path == inherited.pid_file)


def _facts(plan: LaunchPlan) -> dict[str, Any]:
    """What `djasgi status` says of the plan."""
    return {
        "project": str(plan.path),
        "name": plan.path.name,
        "application": output.application(plan),
        "environment": plan.environment.value if plan.environment else None,
        "settings": plan.settings.value if plan.settings else None,
        "server": plan.options.server,
        "version": __version__,
    }


def _services(
    facts: Mapping[str, Any],
    pid_file: PidFile | None,
    inherited: Inherited | None = None,
) -> tuple[Callable[[], Service], ...]:
    """What makes the services of the supervisor.

    Their modules are imported then: while the first worker imports the project, and not
    on its way.
    """
    before = inherited.control if inherited else None

    def control() -> Service:
        from djasgi.supervisor.control import Control

        return Control(facts, os.environ, before)

    def notify() -> Service:
        from djasgi.supervisor.notify import Notify

        return Notify(os.environ)

    return (
        (control, notify) if pid_file is None else (lambda: pid_file, control, notify)
    )


def _configure_logs(plan: LaunchPlan) -> tuple[bool, bool]:
    """Whether the log is coloured, and whether it is read at a terminal."""
    color = logs.use_color(sys.stdout, os.environ)
    terminal = _is_terminal()
    logs.configure(plan.options, color=color, terminal=terminal)
    for warning in (*plan.warnings, *_not_taken(plan)):
        logger.warning(warning)
    return color, terminal


def _open_listeners(
    plan: LaunchPlan, tls: Tls | None, inherited: Sequence[Mapping[str, Any]] = ()
) -> Listeners:
    return open_listeners(
        plan.binds,
        uds_mode=plan.options.uds_mode,
        backlog=plan.options.backlog,
        scheme="https" if tls else "http",
        inherited=inherited,
    )


def _load_tls(plan: LaunchPlan) -> Tls | None:
    of_tls = ("ssl_", "http2")
    if not any(v.asked for name, v in plan.values.items() if name.startswith(of_tls)):
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
