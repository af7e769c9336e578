"""What only the operating system can say or do about our processes. Linux, mostly."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def can_adopt() -> bool:
    """Whether this system gives orphans to a process that asks for them."""
    return sys.platform == "linux"


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends: prctl(2).

    Raises OSError.
    """
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(signal: int, parent: int) -> None:
    """Have `signal` sent to this process when its parent `parent` ends: prctl(2)."""
    if sys.platform == "linux":
        _prctl(PR_SET_PDEATHSIG, signal)
    if os.getppid() != parent:  # it ended before
        os.kill(os.getpid(), signal)


def _prctl(option: int, value: int) -> None:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def process_exists(pid: int) -> bool:
    """Whether a process of this number runs, whoever it belongs to.

    Not one that has ended and waits for its parent to take notice.
    """
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    with suppress(OSError, IndexError):
        text = Path(f"/proc/{pid}/stat").read_text()
        return text.rpartition(")")[2].split()[0] not in ("Z", "X")
    return True


def memory(pid: int) -> int | None:
    """The resident memory of a process in bytes, shared pages included; None if gone."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return None


def proportional_memory(pid: int) -> int | None:
    """The memory of a process in bytes, shared pages divided among those that share
    them (Pss in proc_pid_smaps(5)); resident memory where that is not to be had.
    """
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return memory(pid)


def has_terminal() -> bool:
    """Whether this process has a controlling terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
