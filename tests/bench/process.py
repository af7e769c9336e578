"""A server that is being measured."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from tests.bench.commands import PROJECT, Command, Gunicorn, environment

BOOT_LIMIT = 60.0
PAUSE = 0.002
ASK = b"GET /pid HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


class BenchError(Exception):
    """A measurement that could not be made."""


class Running:
    """A started command; `started` is the monotonic time before it was."""

    def __init__(self, command: Command | Gunicorn, log: Path) -> None:
        self.command = command
        self.port = free_port()
        self.log = log
        with log.open("wb") as output:
            self.started = monotonic()
            self.process = subprocess.Popen(
                command.argv(self.port),
                cwd=PROJECT,
                env=environment() | dict(command.variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def wait_for_answer(self) -> float:
        """Seconds from the launch to the first page that came back with 200."""
        while not self._answers():
            self.pause()
        return monotonic() - self.started

    def wait_for_workers(self, number: int) -> float:
        """Seconds from the launch until so many different processes have answered."""
        asyncio.run(self._see_workers(number))
        return monotonic() - self.started

    def pause(self) -> None:
        """Wait a moment; raise BenchError if there is nothing to wait for any more."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PAUSE)
        self.check()

    def check(self) -> None:
        if self.process.poll() is not None:
            self.fail(f"exited with {self.process.returncode}")
        if monotonic() - self.started > BOOT_LIMIT:
            self.fail(f"did not answer within {BOOT_LIMIT:g} s")

    def fail(self, reason: str) -> None:
        lines = self.log.read_text(errors="replace").splitlines()[-20:]
        raise BenchError("\n".join((f"{self.command}: {reason}", *lines)))

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    async def _see_workers(self, number: int) -> None:
        pids: set[bytes] = set()
        asking: set[asyncio.Task[None]] = set()
        while len(pids) < number:
            if len(asking) < 2 * number:
                task = asyncio.create_task(self._see_worker(pids))
                asking.add(task)
                task.add_done_callback(asking.discard)
            await asyncio.sleep(PAUSE)
            self.check()

    async def _see_worker(self, pids: set[bytes]) -> None:
        """Ask who answers; a refused connection is no answer."""
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(ASK)
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
            if head.startswith(b"HTTP/1.1 200"):
                pids.add(body)


@contextmanager
def running(command: Command | Gunicorn) -> Iterator[Running]:
    """Start `command` in the benchmark's project; nothing of it is left at the end."""
    with tempfile.TemporaryDirectory() as folder:
        process = Running(command, Path(folder, "log"))
        try:
            yield process
        finally:
            process.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def progress(text: str) -> None:
    """Say what is being measured, on a line that the next one replaces."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
