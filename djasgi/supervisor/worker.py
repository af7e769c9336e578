"""The side of the worker: signals, the supervisor's death, saying ready, serving.

`serve(number, channel)` blocks until the engine has stopped. It calls
`channel.stop_with(loop, stop)` as soon as its loop exists, and `channel.ready()` when
it accepts connections on all sockets.
"""

from __future__ import annotations

import atexit
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

from djasgi.errors import DjasgiError, ExitCode
from djasgi.supervisor.board import Board, Slot
from djasgi.supervisor.descriptors import descriptors_exhausted
from djasgi.supervisor.job import Serve
from djasgi.supervisor.messages import as_error, encode_failure, send
from djasgi.supervisor.pool import KILL_GRACE
from djasgi.supervisor.sockets import Listeners
from djasgi.supervisor.state import boot_exit_code

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop  # of the worker: not for the supervisor

logger = logging.getLogger("djasgi")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
STACK_SIGNAL = signal.SIGUSR2
"""Has a worker write the stacks of its threads."""


class Channel:
    """How `serve` and whoever started it talk with each other."""

    def __init__(
        self,
        tell: Callable[[dict[str, Any]], None],
        stop: Stop,
        board: Board,
        slot: Slot,
    ) -> None:
        self.board = board
        self.slot = slot
        self.on_beat: Callable[[float], None] | None = None
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

    def retire(self, reason: str) -> None:
        """Ask for a successor; when it is ready, this worker is told to stop."""
        self._tell({"type": "retire", "reason": reason})

    def stuck(self, threads: int, waiting: int, seconds: float) -> None:
        """Tell that no call of `threads` has ended for so long, while others wait."""
        message = {"threads": threads, "waiting": waiting, "seconds": seconds}
        self._tell({"type": "stuck", **message})

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

    @property
    def serves(self) -> bool:
        """Whether there is a loop to stop."""
        return self._loop is not None

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


def run_worker(
    worker_number: int,
    serve: Serve,
    message_pipe: int,
    parent_pipe: int,
    graceful_timeout: float,
    *,
    board: Board,
    slot: Slot,
) -> int:
    """Serve until told to stop; the exit status of this process, which must end now.

    Called with every signal blocked, in a process that was just forked. The write end
    of `parent_pipe` is open in the supervisor only: its end is the supervisor's.
    """
    stop = Stop(lambda: _leave_at_once(ExitCode.STOPPED))
    stop.handlers = {signal.SIGTERM: stop}
    stop.install()
    signal.signal(signal.SIGUSR1, nothing)
    faulthandler.register(STACK_SIGNAL, file=message_pipe, all_threads=True)
    for number in (signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_DFL)
    # Started with the signals blocked, so that they all go to the main thread.
    deadline = graceful_timeout + KILL_GRACE
    _thread(lambda: _outlive(parent_pipe, deadline))
    signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def tell(message: dict[str, Any]) -> None:
        if not send(message_pipe, message):
            # The supervisor is gone, or has given up this worker before it knew it.
            os.kill(os.getpid(), signal.SIGTERM)

    channel = Channel(tell, stop, board, slot)
    _serve(serve, worker_number, channel)
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
    drain_delay: float = 0.0,
    on_stop: Callable[[], None] = lambda: None,
    on_beat: Callable[[float], None] | None = None,
) -> int:
    """Serve in this process, without a supervisor; the exit code of the program.

    SIGTERM, SIGINT and SIGHUP stop, after `drain_delay` seconds; a second SIGINT and
    SIGQUIT do it at once. `on_stop` is called when a stop was asked for, `on_beat` now
    and then while the event loop runs, with the monotonic time.
    """
    try:
        wakeup, alarm = os.pipe()
        board = Board()
    except OSError:
        on_failure(descriptors_exhausted())
        return ExitCode.LISTEN
    stop = Stop(_interrupt)
    signals = _LocalSignals(stop, listeners, alarm, board, drain_delay, on_stop)
    stop.handlers = dict.fromkeys(STOP_SIGNALS, signals)
    deadline = drain_delay + graceful_timeout + KILL_GRACE
    _thread(lambda: _stop_late(wakeup, deadline, listeners))

    def tell(message: dict[str, Any]) -> None:
        if message["type"] == "ready":
            on_ready(message["facts"])

    channel = Channel(tell, stop, board, board.take())
    channel.on_beat = on_beat
    try:
        signal.signal(signal.SIGUSR1, nothing)
        if sys.stdout is not None:
            faulthandler.register(STACK_SIGNAL, file=1, all_threads=True)
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

    def __init__(
        self,
        stop: Stop,
        listeners: Listeners,
        alarm: int,
        board: Board,
        drain_delay: float,
        on_stop: Callable[[], None],
    ) -> None:
        self.requested = False
        self._interrupts = 0
        self._stop = stop
        self._listeners = listeners
        self._alarm = alarm
        self._board = board
        self._drain_delay = drain_delay
        self._on_stop = on_stop

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += number == signal.SIGINT
        if number == signal.SIGQUIT or self._interrupts > 1:
            self._listeners.close()
            _leave_at_once(ExitCode.STOPPED)
        if self.requested:
            return
        self.requested = True
        os.write(self._alarm, b"!")
        self._on_stop()
        if number == signal.SIGINT:
            self._board.set_linger(0)
        if self._drain_delay and self._stop.serves:
            self._board.not_ready()
            timer = threading.Timer(self._drain_delay, self._stop)
            timer.daemon = True
            timer.start()
        else:
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
