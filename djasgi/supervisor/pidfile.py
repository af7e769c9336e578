"""The pid file: a process id, for those who want one."""

from __future__ import annotations

import logging
import os
import selectors
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from djasgi.errors import ListenError
from djasgi.supervisor.system import process_exists

if TYPE_CHECKING:
    from djasgi.supervisor.events import Action
    from djasgi.supervisor.master import Supervisor

logger = logging.getLogger("djasgi")


class PidFile:
    """A service of the supervisor; see `djasgi.supervisor.service.Service`."""

    def __init__(self, path: Path, *, inherited: bool = False) -> None:
        """Write it. Raises ListenError where it cannot be, or another one runs.

        One that is `inherited` names this process already: what keeps it from being
        written anew is said, and serving goes on.
        """
        self.path = path
        self._text = f"{os.getpid()}\n"
        try:
            self._write()
        except ListenError as error:
            if not inherited:
                raise
            logger.warning("%s", error.message)

    def _write(self) -> None:
        path = self.path
        other = _running(path)
        if other is not None and other != os.getpid():
            raise ListenError(
                f"{path} names process {other}, which runs.",
                hint="Stop that one, or choose another --pid-file.",
            )
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_text(self._text)
            temporary.replace(path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise ListenError(
                f"The pid file {path} cannot be written: {error.strerror}.",
                hint="Choose a directory that exists and that this user may write to.",
            ) from error

    def register(self, selector: selectors.BaseSelector) -> None:
        """There is nothing to watch."""

    def tell(self, supervisor: Supervisor, action: Action) -> None:
        """It says the same at all times."""

    def deadline(self) -> float | None:
        return None

    def tick(self, supervisor: Supervisor, now: float) -> None:
        """Nothing changes with time."""

    def hand_over(self) -> tuple[dict[str, Any], list[int]]:
        return {"path": str(self.path)}, []

    def close(self) -> None:
        """Remove it, if it is still ours."""
        remove(self.path)


def revert(made: PidFile | None, before: Path | None) -> PidFile | None:
    """The pid file as it was `before` a reload, instead of one `made` for its plan."""
    if made is not None and made.path != before:
        made.close()
    return None if before is None else PidFile(before, inherited=True)


def commit(made: PidFile | None, before: Path | None) -> None:
    """Remove the one `before` a reload, unless it is the one that is `made`."""
    if before is not None and (made is None or made.path != before):
        remove(before)


def remove(path: Path) -> None:
    """Remove a pid file that names this process."""
    with suppress(OSError, ValueError):
        if int(path.read_text()) == os.getpid():
            path.unlink()


def _running(path: Path) -> int | None:
    """The process that a pid file names, if there is one."""
    with suppress(OSError, ValueError):
        pid = int(path.read_text())
        if pid > 0 and process_exists(pid):
            return pid
    return None
