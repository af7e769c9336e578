"""File descriptors: the three of every process, and when there are no more."""

from __future__ import annotations

import os
import resource

from djasgi.errors import ListenError


def occupy_standard_descriptors() -> None:
    """Open /dev/null where standard input, output or error is closed.

    A socket or pipe would take the number, and what is printed would go into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def descriptors_exhausted() -> ListenError:
    """The error for people when there are no file descriptors left."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == limit:
        hint = "Raise it where djasgi is started from: LimitNOFILE= in a systemd unit, "
        hint += "ulimits in a container, or as root: ulimit -n 4096"
    else:
        more = 4096 if most == resource.RLIM_INFINITY else most
        hint = f"Raise it before starting: ulimit -n {more}"
    return ListenError(
        f"Too many open files: the limit is {limit} (ulimit -n).", hint=hint
    )
