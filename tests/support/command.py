"""Run the real djasgi command to its end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

PROJECTS = Path(__file__).parent.parent / "projects"
EXAMPLES = Path(__file__).parent.parent.parent / "examples"
DJASGI = (sys.executable, "-m", "djasgi")

_OURS = ("DJASGI_", "DJANGO_", "LISTEN_")
_PLATFORM = ("PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS")
_TERMINAL = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")


def environment(**variables: str) -> dict[str, str]:
    """The environment without anything that djasgi reads, plus `variables`."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OURS) and name not in (*_PLATFORM, *_TERMINAL)
    }
    return inherited | {"PYTHONDONTWRITEBYTECODE": "1"} | variables


def djasgi(
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    prefix: tuple[str, ...] = (),
    preexec: Callable[[], None] | None = None,
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run `djasgi ARGUMENTS` in `cwd` to its end, for commands that are to fail.

    `timeout` in seconds; raises subprocess.TimeoutExpired when the command stays.
    """
    return subprocess.run(
        [*prefix, *DJASGI, *arguments],
        cwd=cwd,
        env=environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        preexec_fn=preexec,  # limits of the child, set before exec
    )
