"""The side of the worker: signals, the supervisor's death, saying ready, serving.

`serve(number, channel)` blocks until the engine has stopped. It calls
`channel.stop_with(loop, stop)` as soon as its loop exists, and `channel.ready()` when
it accepts connections on all sockets.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from errno import EMFILE, ENFILE
from types import FrameType
from typing import TYPE_CHECKING, Any

from djasgi.errors import DjasgiError, ExitCode, ListenError, ProjectError, UsageError
from djasgi.supervisor.sockets import Listeners, descriptors_exhausted
from djasgi.supervisor.state import KILL_GRACE, boot_exit_code

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop  # of the worker: not for the supervisor

logger = logging.getLogger("djasgi")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
IDLE_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)
"""Accepted, so that they do not kill, and without a meaning yet."""

MAX_TEXT = 64 * 1024
MAX_MESSAGE = 1024 * 1024


class Channel:
    """How `serve` and whoever started it talk with each other."""

    def __init__(self, tell: Callable[[dict[str, Any]], None], stop: Stop) -> None:
        self.failure: DjasgiError | None = None
        self.is_ready = False
        self._tell = tell
        self._stop = stop

    def ready(self, **facts: Any) -> None:
        """Say that the engine accepts connections on all sockets.

        `facts` are what only a worker knows; they must be JSON.
        """
        self.is_ready = True
        self._tell({"type": "ready", "facts": facts})

    def failed(self, error: BaseException) -> None:
        """Say why this worker does not serve. Only the first time counts."""
        if self.failure is None:
            self.failure = as_error(error)
            self._tell(encode_failure(self.failure))

    def stop_with(self, loop: AbstractEventLoop, stop: Callable[[], object]) -> None:
        """From now on a stop calls `stop` in `loop`. Before, it ends the process."""
        self._stop.attach(loop, stop)


class Stop:
    """A signal handler: `end` while there is no loop, then a call in the loop.

    Not `loop.add_signal_handler`, because closing a loop puts the default back, and a
    second signal would then kill a worker that is just tidying up.
    """

    def __init__(self, end: Callable[[], None]) -> None:
        self.handlers: dict[signal.Signals, Handler] = {}
        self._end = end
        self._loop: AbstractEventLoop | None = None
        self._stop: Callable[[], object] = end
        self._over = False

    def install(self) -> None:
        """Take the stop signals; those without a handler do nothing.

        A function and not SIG_IGN, which the processes that the project starts would
        inherit. SIGHUP stays ignored where it was, under nohup.
        """
        for number in STOP_SIGNALS:
            if (
                number is not signal.SIGHUP
                or signal.getsignal(number) is not signal.SIG_IGN
            ):
                signal.signal(number, self.handlers.get(number, nothing))

    def attach(self, loop: AbstractEventLoop, stop: Callable[[], object]) -> None:
        self._stop = stop
        self._loop = loop
        # The project may have installed its own while it was imported.
        self.install()

    def release(self) -> None:
        """The engine has stopped: there is nothing left to ask for."""
        self._over = True

    def __call__(self, number: int = 0, frame: FrameType | None = None) -> None:
        if self._over:
            return
        if self._loop is None:
            self._end()
        else:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._stop)


Handler = Callable[[int, FrameType | None], object]
Serve = Callable[[int, Channel], None]


def run_worker(
    number: int,
    serve: Serve,
    message_pipe: int,
    parent_pipe: int,
    graceful_timeout: float,
) -> int:
    """Serve until told to stop; the exit status of this process, which must end now.

    Called with every signal blocked, in a process that was just forked. The write end
    of `parent_pipe` is open in the supervisor only: its end is the supervisor's.
    """
    # What the supervisor's own code registered runs there; logging is ours as well.
    atexit._clear()  # noqa: SLF001  # there is no public way
    atexit.register(logging.shutdown)
    stop = Stop(lambda: _leave_at_once(ExitCode.STOPPED))
    stop.handlers = {signal.SIGTERM: stop}
    stop.install()
    _take_idle_signals()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Started with the signals blocked, so that they all go to the main thread.
    deadline = graceful_timeout + KILL_GRACE
    _thread(lambda: _outlive(parent_pipe, deadline))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    channel = Channel(lambda message: _send(message_pipe, message), stop)
    _serve(serve, number, channel)
    stop.release()
    failure = channel.failure
    status = ExitCode.STOPPED if failure is None else failure.exit_code
    # Whatever still runs, a thread or an exit handler, has as long as a request.
    _thread(lambda: _leave_after(deadline, status))
    _finish()
    return status


def run_in_process(
    serve: Serve,
    listeners: Listeners,
    *,
    graceful_timeout: float,
    on_ready: Callable[[dict[str, Any]], None],
    on_failure: Callable[[DjasgiError], None],
) -> int:
    """Serve in this process, without a supervisor; the exit code of the program.

    SIGTERM, SIGINT and SIGHUP stop; a second SIGINT and SIGQUIT do it at once.
    """
    try:
        wakeup, alarm = os.pipe()
    except OSError:
        on_failure(descriptors_exhausted())
        return ExitCode.LISTEN
    stop = Stop(_interrupt)
    signals = _LocalSignals(stop, listeners, alarm)
    stop.handlers = dict.fromkeys(STOP_SIGNALS, signals)
    deadline = graceful_timeout + KILL_GRACE
    _thread(lambda: _stop_late(wakeup, deadline, listeners))
    channel = Channel(
        lambda message: on_ready(message["facts"]) if "facts" in message else None, stop
    )
    try:
        _take_idle_signals()
        stop.install()
        _serve(serve, 0, channel)
    finally:
        stop.release()
        ignore_stop_signals()
    if channel.failure is None and not signals.requested:
        channel.failed(
            DjasgiError(
                "The server has ended by itself.",
                hint="Nobody asked it to stop: look at the lines before.",
            )
        )
    if channel.failure is None:
        return ExitCode.STOPPED
    on_failure(channel.failure)
    code = int(channel.failure.exit_code)
    return code if channel.is_ready else boot_exit_code(code)


class _LocalSignals:
    """The signals of a process that serves without a supervisor."""

    def __init__(self, stop: Stop, listeners: Listeners, alarm: int) -> None:
        self.requested = False
        self._interrupts = 0
        self._stop = stop
        self._listeners = listeners
        self._alarm = alarm

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if number == signal.SIGQUIT or self._interrupts > 1:
            self._listeners.close()
            _leave_at_once(ExitCode.STOPPED)
        if not self.requested:
            self.requested = True
            os.write(self._alarm, b"!")
        self._stop()


def _interrupt() -> None:
    # Not SystemExit: what imports the project tells that as the project's failure.
    raise KeyboardInterrupt


def _serve(serve: Serve, number: int, channel: Channel) -> None:
    try:
        serve(number, channel)
    except KeyboardInterrupt:
        pass
    except BaseException as error:  # noqa: BLE001  # this is the end of the line
        channel.failed(error)


def _take_idle_signals() -> None:
    for number in IDLE_SIGNALS:
        signal.signal(number, nothing)


def nothing(number: int, frame: FrameType | None) -> None:
    """A signal handler that does nothing."""


def ignore_stop_signals() -> None:
    """The exit code is settled: no late signal may change it.

    SIG_IGN, because the interpreter puts the defaults back for handlers at its end.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _thread(target: Callable[[], None]) -> None:
    threading.Thread(target=target, name="djasgi-deadline", daemon=True).start()


def _outlive(parent_pipe: int, deadline: float) -> None:
    """Stop when the supervisor is gone, however it ended; at the deadline, die."""
    os.read(parent_pipe, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    _leave_after(deadline, ExitCode.FAILURE)


def _stop_late(wakeup: int, deadline: float, listeners: Listeners) -> None:
    os.read(wakeup, 1)
    threading.Event().wait(deadline)
    logger.warning("not stopped %g s after it was asked: stopping at once", deadline)
    listeners.close()
    _leave_at_once(ExitCode.STOPPED)


def _leave_after(seconds: float, status: int) -> None:
    threading.Event().wait(seconds)
    _leave_at_once(status)


def _leave_at_once(status: int) -> None:
    _flush()
    os._exit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # Closed, a pipe without a reader, or interrupted while it was being written.
        with suppress(OSError, ValueError, RuntimeError):
            if stream is not None:
                stream.flush()


def _finish() -> None:
    """What the interpreter does at its end: join threads, run exit handlers, flush.

    By hand, because ending normally would unwind the supervisor's stack as well.
    """
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001  # as multiprocessing does
        atexit._run_exitfuncs()  # noqa: SLF001  # there is no public way
    finally:
        _flush()


def _send(pipe: int, message: dict[str, Any]) -> None:
    data = memoryview(json.dumps(message).encode() + b"\n")
    with suppress(BrokenPipeError):  # the supervisor is gone
        while data:
            data = data[os.write(pipe, data) :]


class Inbox:
    """Messages out of the bytes of a pipe: one JSON object a line, in any pieces."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages that `data` completes. What is not a message is dropped."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        self._buffer = self._buffer[:MAX_MESSAGE]
        messages = []
        for line in lines:
            with suppress(ValueError, RecursionError):
                message = json.loads(line)
                if isinstance(message, dict):
                    messages.append(message)
        return messages


def as_error(error: BaseException) -> DjasgiError:
    """`error` for people: a DjasgiError as it is, anything else with its traceback."""
    if isinstance(error, DjasgiError):
        return error
    if isinstance(error, OSError) and error.errno in (EMFILE, ENFILE):
        return descriptors_exhausted()
    summary = traceback.format_exception_only(error)[-1].strip()
    return DjasgiError(
        f"Serving failed: {summary[:1000]}",
        hint="The traceback says where.",
        details="".join(traceback.format_exception(error)).rstrip(),
    )


def encode_failure(error: DjasgiError) -> dict[str, Any]:
    """The message for `error`; of a long text the end, where the cause is, is kept."""
    return {
        "type": "failed",
        "exit_code": int(error.exit_code),
        "message": error.message[-MAX_TEXT:],
        "hint": error.hint[-MAX_TEXT:],
        "details": error.details[-MAX_TEXT:],
    }


def decode_failure(message: dict[str, Any]) -> DjasgiError:
    """The error of a message, of the class that has its exit code."""
    kinds = {int(k.exit_code): k for k in (UsageError, ProjectError, ListenError)}
    code = message.get("exit_code")
    kind = kinds.get(code, DjasgiError) if isinstance(code, int) else DjasgiError
    return kind(
        str(message.get("message", "")),
        hint=str(message.get("hint", "")),
        details=str(message.get("details", "")),
    )
