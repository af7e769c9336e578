"""The process that imports the project once and forks workers from what it has.

It forks twice, so that the supervisor, which adopts orphans, becomes the parent of each
worker and learns how it ended. It is only ever killed, never asked to stop: a hanging
import must not keep anybody.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import socket
import traceback
from collections.abc import Callable
from contextlib import suppress
from errno import EAGAIN
from typing import Any, NoReturn

from djasgi.errors import ExitCode
from djasgi.supervisor import unforkable
from djasgi.supervisor.board import Board
from djasgi.supervisor.job import Job, Preloaded, Serve
from djasgi.supervisor.messages import as_error, encode_failure, send
from djasgi.supervisor.system import die_with_parent
from djasgi.supervisor.worker import STOP_SIGNALS, nothing, run_worker

MAX_COMMAND = 1024


class Preloading:
    """The side of the process itself. Everything in it may be passed on by a fork."""

    def __init__(
        self,
        job: Job,
        *,
        commands: socket.socket,
        pipe: int,
        parent_pipe: int,
        board: Board,
        parent: int,
        reloading: bool,
    ) -> None:
        self.job = job
        self.parent = parent
        self.commands = commands
        self.pipe = pipe
        self.parent_pipe = parent_pipe
        self.board = board
        self.reloading = reloading

    def run(self) -> NoReturn:
        """Called with every signal blocked, in a process that was just forked."""
        status: int = ExitCode.STOPPED
        try:
            begin_aside(self.parent)
            preloaded = self._load()
            if preloaded is not None:
                self._serve_commands(preloaded.serve)
        except BaseException as error:  # noqa: BLE001  # nothing may go up the stack
            failure = as_error(error)
            status = failure.exit_code
            send(self.pipe, encode_failure(failure))
        finally:
            os._exit(status)

    def _load(self) -> Preloaded | None:
        """The application, or None when it was told why it cannot be forked."""
        before = unforkable.present()
        assert self.job.load is not None, "there is nothing to preload"  # noqa: S101
        preloaded = self.job.load(self.reloading)
        found = unforkable.left_since(before)
        reason = preloaded.unforkable or unforkable.summary(found)
        if reason and (self.job.preload == "auto" or preloaded.unforkable):
            send(self.pipe, {"type": "unforkable", "found": reason})
            return None
        send(self.pipe, {"type": "prepared", "found": reason})
        return preloaded

    def _serve_commands(self, serve: Serve) -> None:
        while True:
            data, descriptors, _, _ = socket.recv_fds(self.commands, MAX_COMMAND, 1)
            if not data:
                return  # the supervisor is gone, or has another generation
            command = json.loads(data)
            try:
                self._spawn(serve, command, descriptors[0])
            except OSError as error:
                number = error.errno or EAGAIN
                answer = {"type": "spawn failed", "number": command["number"]}
                send(self.pipe, answer | {"errno": number})
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

    def _spawn(self, serve: Serve, command: dict[str, Any], message_pipe: int) -> None:
        """Fork a process that forks the worker and ends. Raises OSError."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            between = os.fork()
            if between == 0:
                self._fork_worker(serve, command, message_pipe)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _, status = os.waitpid(between, 0)
        if number := os.waitstatus_to_exitcode(status):
            raise OSError(abs(number), os.strerror(abs(number)))

    def _fork_worker(
        self, serve: Serve, command: dict[str, Any], message_pipe: int
    ) -> NoReturn:
        try:
            if os.fork() == 0:
                self._become_worker(serve, command, message_pipe)
        except OSError as error:
            os._exit(error.errno or EAGAIN)
        os._exit(0)

    def _become_worker(
        self, serve: Serve, command: dict[str, Any], message_pipe: int
    ) -> NoReturn:
        status: int = ExitCode.FAILURE
        try:
            if not send(message_pipe, {"type": "hello", "pid": os.getpid()}):
                os._exit(status)  # it was given up in between
            self.commands.close()
            os.close(self.pipe)
            status = run_worker(
                command["number"],
                serve,
                message_pipe,
                self.parent_pipe,
                command["graceful_timeout"],
                board=self.board,
                slot=self.board.slot(command["slot"]),
            )
        except BaseException:  # noqa: BLE001  # nothing may go up the stack from here
            traceback.print_exc()
        finally:
            os._exit(status)


def begin_aside(parent: int) -> None:
    """What a process does first that was just forked by `parent`, and is no worker.

    Called with every signal blocked. Stop signals that the whole group gets are the
    supervisor's affair; it ends when the supervisor does.
    """
    signal.set_wakeup_fd(-1)
    for number in (*STOP_SIGNALS, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, nothing)
    for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    die_with_parent(signal.SIGKILL, parent)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    # What the supervisor's own code registered runs there; logging is ours as well.
    atexit._clear()  # noqa: SLF001  # there is no public way
    atexit.register(logging.shutdown)


def find_culprits(load: Callable[[bool], object], pipe: int, parent: int) -> NoReturn:
    """In a process of its own: import once more, and tell which module left what."""
    modules: dict[str, str] = {}
    try:
        begin_aside(parent)
        with unforkable.blamed(modules), suppress(Exception):
            load(False)
        send(pipe, {"type": "culprits", "modules": modules})
    finally:
        os._exit(0)
