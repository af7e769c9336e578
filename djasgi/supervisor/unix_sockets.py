"""Unix sockets with a path: they appear in one step, and only ours are removed."""

from __future__ import annotations

import os
import shlex
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EADDRINUSE, EMFILE, ENFILE, ENOENT, EPERM, EROFS
from pathlib import Path

from djasgi.errors import ListenError
from djasgi.frozen import Frozen
from djasgi.supervisor.descriptors import descriptors_exhausted

MAX_UNIX_PATH = 107 if sys.platform == "linux" else 103
"""Bytes that fit into sun_path before its end: unix(7)."""

ATTEMPTS = 10


class UnixPath(Frozen):
    """A path that is ours as long as it is this file."""

    path: str
    device: int
    inode: int

    def is_ours(self) -> bool:
        with suppress(OSError):
            status = os.lstat(self.path)
            return (status.st_dev, status.st_ino) == (self.device, self.inode)
        return False

    def remove(self) -> None:
        if self.is_ours():
            with suppress(OSError):
                os.unlink(self.path)  # noqa: PTH108  # a string, as it was bound


@contextmanager
def _unix_errors(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "Choose another path."
        message = f"{path} cannot be listened on: {error.strerror}."
        if error.errno in (EMFILE, ENFILE):
            raise descriptors_exhausted() from error
        directory = os.path.dirname(path)  # noqa: PTH120  # as it was typed
        if error.errno == ENOENT and not Path(directory).is_dir():
            message = f"The directory of the socket {path} does not exist."
            hint = f"Make it first: mkdir -p {shlex.quote(directory)}"
        elif error.errno in (EACCES, EPERM, EROFS):
            message = f"No permission to make the socket {path}."
            hint = "Choose a directory that this user may write to."
        raise ListenError(message, hint=hint) from error


def open_unix(path: str, mode: int) -> tuple[socket.socket, UnixPath]:
    """A unix socket that appears at `path` in one step, with its permissions."""
    size = len(os.fsencode(path))
    if size > MAX_UNIX_PATH:
        raise ListenError(
            f"The path of the unix socket is too long: {size} bytes, at most "
            f"{MAX_UNIX_PATH} are possible.",
            hint="Choose a shorter one, such as /run/djasgi.sock",
        )
    with _unix_errors(path):
        _refuse_occupied(path)
        sock, temporary = _bind_temporary(path)
        try:
            os.chmod(temporary, mode)  # noqa: PTH101  # a string, as it was bound
            status = os.lstat(temporary)
            os.rename(temporary, path)  # noqa: PTH104  # as above
        except BaseException:
            sock.close()
            os.unlink(temporary)  # noqa: PTH108  # as above
            raise
    return sock, UnixPath(os.path.abspath(path), status.st_dev, status.st_ino)  # noqa: PTH100  # links are not to be resolved


def _bind_temporary(path: str) -> tuple[socket.socket, str]:
    directory, name = os.path.split(path)
    attempts = ATTEMPTS
    while True:
        attempts -= 1
        # Not longer than the name itself, which is known to fit.
        token = os.urandom(8).hex()[: max(1, len(os.fsencode(name)) - 1)]
        temporary = os.path.join(directory, f".{token}")  # noqa: PTH118  # as typed
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(temporary)
        except OSError as error:
            sock.close()
            if error.errno != EADDRINUSE or not attempts:
                raise
        else:
            return sock, temporary


def _refuse_occupied(path: str) -> None:
    """Raise ListenError unless there is nothing at `path`, or a dead socket."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ListenError(
            f"{path} exists and is not a socket.",
            hint="Remove it, or choose another path.",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        owner = ""
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError:
            pass  # its queue is full, it is of another type, or it is not for us
        else:
            from djasgi.supervisor import occupants

            owner = occupants.peer(probe)
    raise ListenError(
        f"{path} is in use{owner}.",
        hint="Stop that one, or choose another path.",
    )
