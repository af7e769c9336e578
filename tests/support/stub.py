"""A supervisor over a server of a few lines, without Django: `python stub.py`."""

from __future__ import annotations

import socket
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.process import Process

ROOT = Path(__file__).parents[2]

PROLOGUE = """
from __future__ import annotations
import asyncio, atexit, logging, os, signal, sys, threading, time
from djasgi.errors import ListenError, ProjectError, UsageError
from djasgi.kinds import Bind
from djasgi.supervisor import handover
from djasgi.supervisor.job import Job, Policy, Preloaded
from djasgi.supervisor.master import supervise
from djasgi.supervisor.sockets import open_listeners
from djasgi.supervisor.worker import run_in_process

logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")

def say(text):
    os.write(1, f"{text}\\n".encode())  # in one piece, whoever else writes

def answering(number, channel, before_ready=lambda: None, after_stop=lambda: None):
    async def answer(reader, writer):
        request = await reader.readline()
        if request == b"crash\\n":
            os._exit(7)
        if request == b"slow\\n":
            say("slow request")
            await asyncio.sleep(0.3)
        if request == b"block\\n":
            say("blocking")
            time.sleep(3600)
        writer.write(b"worker %d\\n" % number)
        await writer.drain()
        writer.close()

    async def main():
        stop = asyncio.Event()
        channel.stop_with(asyncio.get_running_loop(), stop.set)
        before_ready()
        servers = [await asyncio.start_server(answer, sock=s) for s in listeners.sockets]
        say(f"worker {number} is {os.getpid()}")
        channel.ready(loop="of " + __name__)
        await stop.wait()
        for server in servers:
            server.close()
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.01)
        after_stop()
        say(f"worker {number} drained")

    asyncio.run(main())

serve = answering
binds = [Bind("tcp", host="127.0.0.1", port=0)]
options = dict(workers=2, graceful_timeout=30)

job = Job(lambda number, channel: serve(number, channel))

def check():
    return 0

def on_ready(facts):
    say(f"ready {listeners.addresses[0]} {facts}")

def on_failure(error):
    say(f"failure: {error.message} | {error.hint} | {error.details[-300:]!r}")
"""

SUPERVISED = """
inherited = handover.inherited()
if inherited and inherited.checking:
    sys.exit(check())
with open_listeners(
    binds, uds_mode=0o660, backlog=16, inherited=inherited.listeners if inherited else ()
) as listeners:
    if not inherited:
        port = listeners.sockets[0].getsockname()[1] if binds[0].family == "tcp" else 0
        say(f"bound {port} by {os.getpid()}")
    code = supervise(
        job, listeners, Policy(**options),
        on_ready=on_ready, on_failure=on_failure, inherited=inherited,
    )
sys.exit(code)
"""

IN_PROCESS = """
with open_listeners(binds, uds_mode=0o660, backlog=16) as listeners:
    say(f"bound {listeners.sockets[0].getsockname()[1]} by {os.getpid()}")
    code = run_in_process(
        serve, listeners, on_ready=on_ready, on_failure=on_failure, graceful_timeout=30
    )
sys.exit(code)
"""

Run = Callable[..., Process]


def write_stub(directory: Path, body: str, main: str = SUPERVISED) -> Path:
    """Write the stub with `body` between its functions and its main part."""
    script = directory / "stub.py"
    new = directory / "stub.py.new"
    new.write_text(PROLOGUE + textwrap.dedent(body) + main)
    return new.replace(script)


@contextmanager
def starting(directory: Path) -> Iterator[Run]:
    """Gives a function that writes a stub and starts it; all of them end with it."""
    with ExitStack() as stack:

        def start(
            body: str = "",
            main: str = SUPERVISED,
            prefix: Sequence[str] = (),
            **kwargs: object,
        ) -> Process:
            script = write_stub(directory, body, main)
            env = {"PYTHONPATH": str(ROOT)}
            command = [*prefix, sys.executable, str(script)]
            process = Process(command, env=env, **kwargs)  # type: ignore[arg-type]  # any of its arguments
            return stack.enter_context(process)

        yield start


def port_of(process: Process) -> int:
    return int(process.wait_for(r"bound (\d+)")[1])


def worker_pid(process: Process, number: int, *, count: int = 1) -> int:
    return int(process.wait_for(rf"worker {number} is (\d+)", count=count)[1])


def connect(process: Process) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port_of(process)), timeout=30)


def ask(process: Process, request: bytes = b"hello\n") -> bytes:
    with connect(process) as client:
        client.sendall(request)
        return client.recv(100)
