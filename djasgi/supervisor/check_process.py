"""The throw-away process that tries the new configuration, before a reload begins."""

from __future__ import annotations

import os
import re
import selectors
import signal
import sys
from contextlib import suppress
from typing import Any, NoReturn

from djasgi.errors import DjasgiError, ExitCode, ProjectError
from djasgi.supervisor import handover
from djasgi.supervisor.report import describe_status
from djasgi.supervisor.system import die_with_parent

MOST_OUTPUT = 64 * 1024


class CheckProcess:
    """A throw-away process that reads the new configuration as the next supervisor
    would: whether it could take over, and what it says if not.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        """Raises OSError when it cannot be started."""
        self._output = b""
        self._selector: selectors.BaseSelector | None = None
        self._state = handover.write(state)
        try:
            self.pipe, write = os.pipe()
        except OSError:
            os.close(self._state)
            raise
        parent = os.getpid()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, handover.BLOCKED)
        try:
            self.pid = os.fork()
            if self.pid == 0:
                _become_check(self._state, write, parent)
        except OSError:
            self.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(write)
        os.set_blocking(self.pipe, False)

    def watch(self, selector: selectors.BaseSelector) -> None:
        """Read what it prints, as soon as it does."""
        selector.register(self.pipe, selectors.EVENT_READ, self.read)
        self._selector = selector

    def read(self) -> bool:
        """Take what it has printed; whether there can be more."""
        with suppress(BlockingIOError):
            while data := os.read(self.pipe, 65_536):
                self._output = (self._output + data)[-MOST_OUTPUT:]
            self._unwatch()
            return False
        return True

    def _unwatch(self) -> None:
        if self._selector is not None:
            self._selector.unregister(self.pipe)
            self._selector = None

    def succeeded(self, status: int) -> bool:
        """Whether it ended well with `status`, and has read what was handed over."""
        return status == ExitCode.STOPPED and os.fstat(self._state).st_size == 0

    def failure(self, status: int) -> DjasgiError:
        """The error that it printed before it ended with `status`."""
        self.read()
        if status == ExitCode.STOPPED:
            return ProjectError(
                "The program that was started cannot be executed anew: it does not "
                "come back to djasgi.",
                hint="Start it from a file or with python -m, not from standard input.",
            )
        text = self._output.decode(errors="replace").strip()
        found = re.search(
            r"(.*)^Error: ([^\n]*)\n?(.*)", text, re.DOTALL | re.MULTILINE
        )
        if found is None:
            end = describe_status(status)
            return ProjectError(f"The new djasgi {end}.", hint="", details=text)
        details, message, hint = found.groups()
        return ProjectError(message, hint=hint, details=details.strip())

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def close(self) -> None:
        self._unwatch()
        os.close(self.pipe)
        os.close(self._state)


def _become_check(descriptor: int, output: int, parent: int) -> NoReturn:
    try:
        os.setpgid(0, 0)
        die_with_parent(signal.SIGKILL, parent)
        null = os.open(os.devnull, os.O_RDONLY)
        for number, source in ((0, null), (1, output), (2, output)):
            os.dup2(source, number)
        os.set_inheritable(descriptor, True)
        handover.enter_directory()
        environ = os.environ | {handover.VARIABLE: f"{handover.CHECKING}{descriptor}"}
        if environ.get("LISTEN_PID") == str(parent):
            environ["LISTEN_PID"] = str(os.getpid())
        signal.set_wakeup_fd(-1)
        for blocked in handover.BLOCKED:
            if signal.getsignal(blocked) is not signal.SIG_IGN:
                signal.signal(blocked, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(sys.executable, handover.command(), environ)  # noqa: S606  # not a shell
    except OSError as error:
        os.write(2, f"Error: {sys.executable}: {error.strerror}\n".encode())
    finally:
        os._exit(1)
