"""`djasgi status`, `reload` and `stop`: what is asked of supervisors that run."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from djasgi import discovery, logs, output
from djasgi.errors import DjasgiError, ExitCode, ProjectError, UsageError
from djasgi.supervisor.control import ask, instances
from djasgi.supervisor.system import process_exists

POLL = 0.1
"""Seconds between two questions while something is waited for."""

COUNTERS = ("threads", "leases", "waiting", "connections")
"""Of a worker: threads for synchronous code, requests and websocket connections that
have a lease on one, calls that wait for one, and open database connections."""

Instance = tuple[Path, dict[str, Any]]

MINUTE, HOUR, DAY = 60, 3600, 86_400


def find(
    cwd: Path,
    environ: Mapping[str, str],
    *,
    project: Path | None = None,
    pid: int | None = None,
    every: bool = False,
) -> list[Instance]:
    """The instances of the project in `cwd`, or of whatever was asked for.

    Without a project there, all of this user's. Raises ProjectError when there is none.
    """
    running = instances(environ)
    if pid is not None:
        chosen = [found for found in running if found[1]["pid"] == pid]
        what = f" with the process id {pid}"
    else:
        root = discovery.find_root(cwd, project)
        chosen = [
            found
            for found in running
            if every or root is None or Path(found[1].get("project", "")) == root.path
        ]
        what = "" if every or root is None else f" for {root.path}"
    if chosen:
        return chosen
    hint = "Start it: djasgi serve"
    if running:
        names = sorted({str(found[1].get("project")) for found in running})
        hint = f"It runs for {', '.join(names)}: djasgi status --all"
    raise ProjectError(f"No djasgi is running{what}.", hint=hint)


def only(found: list[Instance], command: str, *, every: bool) -> list[Instance]:
    """`found`, if it is one or all were asked for. Raises UsageError."""
    if len(found) > 1 and not every:
        pids = ", ".join(str(status["pid"]) for _, status in found)
        raise UsageError(
            f"{len(found)} instances are running: process {pids}.",
            hint=f"Name one:  djasgi {command} --pid {found[0][1]['pid']}"
            f"  or all:  djasgi {command} --all",
        )
    return found


def show(found: list[Instance]) -> None:
    """Print the status of each instance for people."""
    color = logs.use_color(sys.stdout, os.environ)
    for index, (_, status) in enumerate(found):
        if index:
            output.say("")
        for text in _head(status):
            output.say(text)
        output.say("")
        output.table(
            ("worker", "pid", "generation", "state", "age", "requests", "memory"),
            [_row(worker) for worker in status["workers"]],
            color=color,
        )
        output.say("")
        output.table(
            ("worker", "active requests", *COUNTERS),
            [_counters(worker) for worker in status["workers"]],
            color=color,
        )


def as_json(found: list[Instance]) -> str:
    """The same for machines: a list of objects."""
    return output.json_text({"instances": [status for _, status in found]})


def _head(status: dict[str, Any]) -> list[str]:
    name = output.printable(str(status.get("name", "")))
    addresses = ", ".join(status["addresses"])
    environment = status.get("environment")
    lines = [
        f"{name}   {addresses}",
        f"  {status['state']} for {_duration(status['age'])}, pid {status['pid']}, "
        f"{status.get('server')}" + (f", {environment}" if environment else ""),
    ]
    last = status.get("last_reload")
    if last:
        ago = _duration(max(0.0, time.time() - last["at"]))
        outcome = "the new code serves" if last["ok"] else "failed, the old code serves"
        lines.append(f"  last reload {ago} ago: {outcome}")
        said = last["reason"].splitlines()
        # An application's own words, where the reason does not have them.
        details = last["details"].splitlines()[-1:]
        if details and details[0].strip() not in last["reason"]:
            said[1:1] = details
        lines += [f"    {output.printable(text)}" for text in said]
    return lines


def _row(worker: dict[str, Any]) -> tuple[str, ...]:
    memory = worker["memory"]
    return (
        str(worker["number"]),
        str(worker["pid"]),
        str(worker["generation"]),
        worker["state"],
        _duration(worker["age"]),
        str(worker["requests"]),
        f"{memory / 2**20:.1f} MiB" if memory else "",
    )


def _counters(worker: dict[str, Any]) -> tuple[str, ...]:
    names = ("number", "active", *COUNTERS)
    return tuple(str(worker[name]) for name in names)


def _duration(seconds: float) -> str:
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR:
        return f"{seconds // MINUTE:.0f} min"
    if seconds < DAY:
        return f"{seconds // HOUR:.0f} h {seconds % HOUR // MINUTE:.0f} min"
    return f"{seconds // DAY:.0f} d {seconds % DAY // HOUR:.0f} h"


def reload(found: list[Instance], *, wait: bool) -> int:
    """Ask each for a reload and wait for how it ends; the exit code.

    Raises ProjectError when the old code goes on serving.
    """
    for path, _ in found:
        before = _asked(path, "reload")
        number = (before.get("last_reload") or {}).get("number", 0)
        if not wait:
            output.say(f"asked pid {before['pid']} to reload")
            continue
        limit = 3 * before["limits"]["boot_timeout"] + 10
        after = _wait(path, limit, partial(_is_over, number))
        last = after["last_reload"]
        if not last["ok"]:
            message, _, hint = last["reason"].partition("\n")
            raise ProjectError(
                f"Not reloaded, the old code goes on serving. {message}",
                hint=hint,
                details=last["details"],
            )
        output.say(
            f"reloaded in {last['seconds']:.2f} s: generation {after['generation']}"
        )
    return ExitCode.STOPPED


def _is_over(number: int, status: dict[str, Any]) -> bool:
    last = status.get("last_reload") or {}
    return bool(status["state"] == "serving" and last.get("number", 0) > number)


def stop(found: list[Instance], *, wait: bool) -> int:
    """Ask each to stop, and wait until it is gone; the exit code."""
    for path, _ in found:
        status = _asked(path, "stop")
        pid, limits = status["pid"], status["limits"]
        if wait:
            seconds = limits["drain_delay"] + limits["graceful_timeout"] + 10
            _wait_for_end(pid, seconds)
        output.say(f"{'stopped' if wait else 'asked to stop:'} pid {pid}")
    return ExitCode.STOPPED


def _asked(path: Path, command: str) -> dict[str, Any]:
    answer = ask(path, command)
    if answer is None or "pid" not in answer:
        raise ProjectError(
            f"The djasgi of {path.name} has just ended.", hint="Start it: djasgi serve"
        )
    return answer


def _wait(
    path: Path, seconds: float, over: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The status as soon as it is `over`. Raises DjasgiError after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            status = _asked(path, "status")
        except TimeoutError:
            continue  # it is between its old and its new self
        if over(status):
            return status
        Event().wait(POLL)
    raise DjasgiError(
        f"The reload has not ended within {seconds:g} s.", hint="See: djasgi status"
    )


def _wait_for_end(pid: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while process_exists(pid):
        if time.monotonic() > deadline:
            raise DjasgiError(
                f"Process {pid} has not ended within {seconds:g} s.",
                hint="See: djasgi status",
            )
        Event().wait(POLL)
