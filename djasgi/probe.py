"""The plan's application in a worker of its own on a loopback port, for `--probe`.

Run as a module it is that worker: `python -m djasgi.probe`, with the plan on standard
input.
"""

from __future__ import annotations

import http.client
import json
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

from djasgi.kinds import Bind
from djasgi.options import OPTIONS
from djasgi.plan import LaunchPlan
from djasgi.values import Value

READY = "listening on "
STOP_TIMEOUT = 10.0
REQUEST_TIMEOUT = 10.0
"""Seconds for the worker to stop, and for one answer."""

_OVERRIDES: dict[str, Any] = {
    "workers": 0,
    "access_log": False,
    "log_format": "json",
    "log_level": "info",
    "pid_file": None,
    "warmup": (),
    "graceful_timeout": 1.0,
    "drain_delay": 0.0,
    "max_requests": 0,
    "max_worker_lifetime": 0.0,
    **{name: spec.default for name, spec in OPTIONS.items() if name.startswith("ssl_")},
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: its status and headers."""

    status: int
    headers: Mapping[str, str]


@dataclass(slots=True)
class Worker:
    """A running worker, or why there is none."""

    host: str = ""
    port: int = 0
    failure: str = ""
    lines: list[str] = field(default_factory=list)

    def get(self, path: str, headers: Mapping[str, str]) -> Answer | None:
        """The answer to a GET, or None when there was none in time."""
        return self._ask(path, headers)

    def websocket(self, path: str, headers: Mapping[str, str]) -> int | None:
        """The status that a websocket handshake was answered with (RFC 6455)."""
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "ZGphc2dpLXByb2JlLWtleQ==",
        }
        answer = self._ask(path, {**upgrade, **headers})
        return answer.status if answer else None

    def _ask(self, path: str, headers: Mapping[str, str]) -> Answer | None:
        connection = http.client.HTTPConnection(
            self.host, self.port, timeout=REQUEST_TIMEOUT
        )
        try:
            connection.putrequest("GET", path, skip_host="Host" in headers)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found)
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()


@contextmanager
def served(plan: LaunchPlan, environ: Mapping[str, str]) -> Iterator[Worker]:
    """Run the plan's application on 127.0.0.1 until the block is left.

    `environ` is the environment as djasgi was given it. A worker that does not start is
    told in `failure`; nothing is raised.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "djasgi.probe"],  # no http.py of the project
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    assert process.stdin is not None  # noqa: S101  # it was asked for
    assert process.stdout is not None  # noqa: S101
    worker = Worker()
    try:
        try:
            process.stdin.write(pickle.dumps(_probed(plan)))
            process.stdin.close()
        except BrokenPipeError:
            pass
        _wait(process.stdout, worker, plan.options.boot_timeout)
        yield worker
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _probed(plan: LaunchPlan) -> LaunchPlan:
    """The same plan in one process, on a free port of this machine."""
    values = {**plan.values, **{n: Value(v) for n, v in _OVERRIDES.items()}}
    return plan.replaced(
        options=plan.options.replaced(**_OVERRIDES),
        values=values,
        binds=(Bind("tcp", host="127.0.0.1", port=0),),
    )


def _wait(stream: IO[bytes], worker: Worker, timeout: float) -> None:
    """Read what the worker says until it listens, has ended, or takes too long."""
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def read() -> None:
        # Goes on to the end: a full pipe would stop the worker.
        try:
            for line in stream:
                lines.put(line)
        except ValueError:
            pass  # closed, since the probe is over
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    deadline = time.monotonic() + timeout
    while True:
        try:
            line = lines.get(timeout=max(deadline - time.monotonic(), 0))
        except queue.Empty:
            worker.failure = f"it was not ready within {timeout:g} seconds"
            return
        if line is None:
            said = " ".join(worker.lines[-3:]).removeprefix("Error: ")
            worker.failure = said or "it ended without a word"
            return
        message = _message(line)
        if message.startswith(READY):
            address = message.removeprefix(READY).partition(", ")[0]
            worker.host, _, port = address.rpartition("://")[2].rpartition(":")
            worker.port = int(port)
            return
        if message:
            worker.lines.append(message)


def _message(line: bytes) -> str:
    text = line.decode("utf-8", "replace").strip()
    try:
        record = json.loads(text)
    except ValueError:
        return text
    return str(record.get("message", "")) if isinstance(record, dict) else text


def main() -> int:
    """Serve the plan that is read from standard input."""
    from djasgi import output, run
    from djasgi.errors import DjasgiError

    plan: LaunchPlan = pickle.load(sys.stdin.buffer)  # noqa: S301  # from our parent
    try:
        return run.serve(lambda: plan)
    except DjasgiError as error:
        output.report(error)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
