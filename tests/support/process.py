"""A real process under test: its log is the clock, and it leaves nobody behind."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import termios
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL, SIGTERM
from time import monotonic
from types import TracebackType
from typing import Self

TIMEOUT = 30.0
"""Seconds. Far more than anything here takes, on a machine busy with other tests."""


def until(condition: Callable[[], bool], what: str, timeout: float = TIMEOUT) -> None:
    """Wait until `condition` holds; an AssertionError that says `what` if it never does."""
    deadline = monotonic() + timeout
    pause = threading.Event()
    while not condition():
        if monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        pause.wait(0.01)


class Process:
    """A command in a session of its own. A context manager.

    At its end it asserts that no process of the session is left, kills those that are,
    and so does every failing wait show the whole log.
    """

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        preexec: Callable[[], None] | None = None,
        pass_fds: Sequence[int] = (),
        columns: int | None = None,
    ) -> None:
        """`env` is added to `environ`, which is this process's when it is not given.

        With `columns` standard output and error are a terminal of that width.
        """
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        output, stdout = os.pipe() if columns is None else _terminal(columns)
        self._output = os.fdopen(output, errors="replace")
        try:
            self.popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stdout,
                env={**(os.environ if environ is None else environ), **(env or {})},
                cwd=cwd,
                preexec_fn=preexec,  # noqa: PLW1509  # sets limits; this side has no locks
                pass_fds=pass_fds,
                start_new_session=True,
            )
        finally:
            os.close(stdout)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    def wait_for(
        self, pattern: str, timeout: float = TIMEOUT, *, count: int = 1
    ) -> re.Match[str]:
        """The `count`-th line that matches `pattern`, once it is there."""
        deadline = monotonic() + timeout
        with self._changed:
            while len(found := self.matches(pattern)) < count:
                left = deadline - monotonic()
                if self._ended or left <= 0:
                    raise AssertionError(
                        f"{len(found)} of {count} lines match {pattern!r} "
                        f"within {timeout:g} s (exit code {self.popen.poll()}) in\n"
                        f"{self.log}"
                    )
                self._changed.wait(left)
        return found[count - 1]

    def matches(self, pattern: str) -> list[re.Match[str]]:
        """The matches of `pattern` in the lines so far."""
        return [m for line in [*self.lines] if (m := re.search(pattern, line))]

    def signal(self, number: int) -> None:
        """Send a signal to the process, not to its children."""
        self.popen.send_signal(number)

    def signal_group(self, number: int) -> None:
        """Send a signal to the whole process group, as a terminal does."""
        os.killpg(self.pid, number)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """The exit code, once the process and its whole log are there."""
        try:
            code = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"still running after {timeout:g} s:\n{self.log}"
            ) from None
        self._reader.join(timeout)
        return code

    def stop(self, number: int = SIGTERM, timeout: float = TIMEOUT) -> int:
        """Ask it to stop; the exit code."""
        self.signal(number)
        return self.wait(timeout)

    def session(self) -> list[int]:
        """The processes of the session that are alive; a zombie is not."""
        return [pid for pid in _pids() if _in_session(pid, self.pid)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        left = self.session()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, SIGKILL)
        self.popen.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        self._output.close()
        if error is None and left:
            raise AssertionError(f"left running: {left}\n{self.log}")

    def _read(self) -> None:
        with suppress(OSError):  # how a terminal says that nobody writes any more
            for line in self._output:
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def _terminal(columns: int) -> tuple[int, int]:
    """The two ends of a pseudo-terminal: what reads its output, and the program's."""
    reader, program = pty.openpty()
    termios.tcsetwinsize(program, (24, columns))
    return reader, program


def _pids() -> list[int]:
    if Path("/proc/self").exists():
        return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()]
    listed = subprocess.run(
        ["/bin/ps", "-axo", "pid="], capture_output=True, text=True, check=True
    )
    return [int(word) for word in listed.stdout.split()]


def _in_session(pid: int, session: int) -> bool:
    try:
        return os.getsid(pid) == session and not _is_zombie(pid)
    except ProcessLookupError:
        return False


def _is_zombie(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] in ("Z", "X")
