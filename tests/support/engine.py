"""An engine in a process of its own, on real sockets, with an application that obeys.

Run as a script it serves: `python tests/support/engine.py SERVER OPTIONS FD...`, with
OPTIONS as JSON. It prints a line for everything worth waiting for. SIGTERM asks it to
stop; SIGUSR1 lets the application go on wherever it waits.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

ROOT = Path(__file__).parent.parent.parent


EVENT_STREAM = b"text/event-stream; charset=utf-8"
LARGE = 8_000_000
MEDIUM = 300_000


def say(text: str) -> None:
    print(text, flush=True)


def seen(value: Any) -> Any:
    """Bytes as the text that they are, to be sent as JSON."""
    return value.decode("latin-1") if isinstance(value, bytes) else repr(value)


def typed(scope: Any) -> Any:
    """The scope, with the types that JSON would hide."""
    kinds = {
        type(scope[name]).__name__ for name in ("client", "server") if scope.get(name)
    }
    kinds |= {type(part).__name__ for field in scope["headers"] for part in field}
    return {**scope, "types": sorted(kinds)}


def as_message(step: dict[str, Any]) -> dict[str, Any]:
    """A message as the application sends it, from JSON."""
    message = dict(step)
    if "headers" in message:
        message["headers"] = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in message["headers"]
        ]
    for name in ("body", "bytes"):
        if name in message:
            message[name] = message[name].encode("latin-1")
    return message


class Application:
    """What it does is the path; what it sees is printed."""

    def __init__(self) -> None:
        self.signal = asyncio.Event()

    def go_on(self) -> None:
        """Release those who wait now, not those who will."""
        self.signal.set()
        self.signal = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            say("lifespan seen")
            return
        say(f"{scope['type']} {scope['path']}")
        try:
            await getattr(self, scope["type"])(scope, receive, send)
        except asyncio.CancelledError:
            say(f"cancelled {scope['path']}")
            raise

    async def http(self, scope: Any, receive: Any, send: Any) -> None:
        async def start(*headers: tuple[bytes, bytes]) -> None:
            message = {"type": "http.response.start", "status": 200}
            await send(message | {"headers": list(headers)})

        async def body(chunk: bytes, more: bool = False) -> None:
            await send({"type": "http.response.body", "body": chunk, "more_body": more})

        match scope["path"]:
            case "/script":
                await self.play(scope, receive, send)
            case path if path.lstrip("/*").partition("/")[0] in ("scope", "") and (
                path != "/"
            ):
                await start()
                await body(json.dumps(typed(scope), default=seen).encode())
            case "/hold":
                await self.signal.wait()
                await start((b"content-length", b"4"))
                await body(b"held")
            case "/stream":
                await start()
                await body(b"first,", more=True)
                await self.signal.wait()
                await body(b"last", more=False)
            case "/chunks" | "/sized" | "/events" | "/silent" | "/late":
                if scope["path"] == "/late":
                    await self.signal.wait()
                kind = b"text/plain" if scope["path"] == "/chunks" else EVENT_STREAM
                length = [(b"content-length", b"100")] * (scope["path"] == "/sized")
                await start((b"content-type", kind), *length)
                if scope["path"] != "/silent":
                    await body(b"data: first\n\n", more=True)
                while (await receive())["type"] != "http.disconnect":
                    pass
                say(f"disconnect {scope['path']}")
            case "/pour":
                await start()
                for _ in range(2000):
                    await body(bytes(65_536), more=True)
                    await asyncio.sleep(0.001)
            case "/medium":
                await start()
                await body(bytes(MEDIUM))
            case "/large":
                await start((b"content-length", b"%d" % LARGE))
                await body(bytes(LARGE))
            case "/keep-alive" | "/close":
                await start((b"Connection", scope["path"][1:].encode()))
                await body(b"said")
            case "/never":
                await asyncio.Event().wait()
            case "/iterator":
                message = {"type": "http.response.start", "status": 200}
                await send(message | {"headers": iter([(b"x-one", b"1")])})
                await body(b"hello")
            case "/raise":
                raise RuntimeError("raised on purpose")
            case "/raise-late":
                await start()
                await body(b"first", more=True)
                raise RuntimeError("raised late on purpose")
            case "/nothing":
                return
            case "/body":
                size = 0
                while (message := await receive())["type"] == "http.request":
                    size += len(message["body"])
                    if not message["more_body"]:
                        break
                await start()
                await body(str(size).encode())
            case _:
                await start((b"content-length", b"5"))
                await body(b"hello")

    async def play(self, scope: Any, receive: Any, send: Any) -> None:
        """Do what the query says, in JSON: a message to send, or one of these words."""
        for step in json.loads(unquote(scope["query_string"].decode())):
            if step == "receive":
                message = await receive()
                say("received " + json.dumps(message, default=bytes.decode))
            elif step == "raise":
                raise RuntimeError("raised on purpose")
            elif step == "exit":
                sys.exit("exited on purpose")
            elif step == "wait":
                await self.signal.wait()
            elif step == "say":
                say("said")
            else:
                await self.attempt(send, as_message(step))

    async def attempt(self, send: Any, message: Any) -> None:
        try:
            await send(message)
        except Exception as error:
            say(f"refused {message['type']} {type(error).__name__}")
            raise

    async def websocket(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/script":
            await self.play(scope, receive, send)
            return
        await receive()
        if scope["path"] == "/scope":
            await send({"type": "websocket.accept"})
            text = json.dumps(typed(scope), default=seen)
            await send({"type": "websocket.send", "text": text})
            await receive()
            return
        if scope["path"] == "/refuse-later":
            await self.signal.wait()
        elif scope["path"] == "/undecided":
            message = await receive()
            say(f"disconnect {message.get('code')}")
            return
        await send({"type": "websocket.accept"})
        if scope["path"] == "/large":
            await send({"type": "websocket.send", "text": "x" * 300_000})
        while (message := await receive())["type"] != "websocket.disconnect":
            text = message.get("text")
            await send({"type": "websocket.send", "text": text or "bytes"})
        say(f"disconnect {message.get('code')}")


async def main(server: Any, values: dict[str, Any], fds: list[int]) -> None:
    from djasgi.layers.compose import compose
    from djasgi.layers.requests import Requests
    from djasgi.options import Options
    from djasgi.tls import load_tls

    for name, value in values.items():
        if name.startswith("ssl_") and name.endswith(("file", "certs")):
            values[name] = Path(value)
        elif isinstance(value, list):
            values[name] = tuple(map(tuple, value))
    # Not asked for by most tests, and not what they are about.
    options = Options(
        **({"access_log": False, "proxy_headers": False} | values), server=server.NAME
    )
    application = Application()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_signal_handler(signal.SIGUSR1, application.go_on)
    requests = Requests(compose(application, options, state=None))

    def linger() -> float:
        say("draining")
        return options.linger

    await server.serve(
        requests,
        options,
        [socket.socket(fileno=fd) for fd in fds],
        load_tls(options),
        ready=lambda: say("ready"),
        stop=stop,
        linger=linger,
        requests=requests,
    )
    say(f"served {requests.total}, {requests.active} active")
    # On the same loop: it must not have been stopped.
    await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    say(f"stopped, {len(left)} tasks left {left or ''}")


def run(name: str, values: dict[str, Any], fds: list[int]) -> None:
    from djasgi import servers
    from djasgi.options import Options

    logging.basicConfig(
        level=values.get("log_level", "info").upper(),
        format="log %(name)s %(levelname)s %(message)s",
        stream=sys.stdout,
    )
    # As djasgi.logs does at every level but debug: at INFO servers repeat djasgi.
    for logger in ("uvicorn", "hypercorn", "daphne", "twisted"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    factory = None
    if values.pop("loop", "uvloop") == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    server = servers.load(name)
    with asyncio.Runner(loop_factory=factory) as runner:
        server.prepare(Options(http2=bool(values.get("http2"))), runner.get_loop())
        runner.run(main(server, values, fds))
    say("loop closed")


class Engine:
    """The script above, started on `sockets`, with its output as the clock."""

    def __init__(
        self, server: str, *sockets: socket.socket, deadline: float = 30, **options: Any
    ) -> None:
        self.log: list[str] = []
        self.deadline = deadline
        self._seen = 0
        self._rest = b""
        fds = [sock.fileno() for sock in sockets]
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-X",
                "faulthandler",
                "-W",
                "always::ResourceWarning",
                __file__,
                server,
                json.dumps(options),
                *map(str, fds),
            ],
            pass_fds=fds,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)

    def __enter__(self) -> Self:
        try:
            self.wait_for("^ready$")
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The next line that matches; fails with the whole output at the deadline."""
        end = time.monotonic() + self.deadline
        while True:
            while self._seen < len(self.log):
                self._seen += 1
                if found := re.search(pattern, self.log[self._seen - 1]):
                    return found
            if not self._read(end - time.monotonic()):
                output = "\n".join(self.log)
                pytest_fail(f"no line matches {pattern!r}:\n{output}")

    def _read(self, seconds: float) -> bool:
        """Whether there was more to read within `seconds`."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if seconds <= 0 or not selector.select(seconds):
                return False
        chunk = os.read(self.process.stdout.fileno(), 65_536)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self.log += [line.decode(errors="replace") for line in lines]
        return bool(chunk)

    def forget(self) -> None:
        """Do not look any more at what has been said until now."""
        while self._read(0.0001):
            pass
        self._seen = len(self.log)

    def release(self) -> None:
        """Let the application go on."""
        self.process.send_signal(signal.SIGUSR1)

    def ask_to_stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> str:
        """Ask to stop, wait for the end; its whole output. It must be a clean end."""
        self.ask_to_stop()
        return self.ended()

    def ended(self) -> str:
        """Wait for a clean end; the whole output."""
        left = self.wait_for(r"^stopped, (\d+) tasks left(.*)")
        assert left[1] == "0", left[0]
        self.wait_for("^loop closed$")
        end = time.monotonic() + self.deadline
        while self._read(end - time.monotonic()):
            pass
        status = self.process.wait(self.deadline)
        output = "\n".join(self.log)
        assert status == 0, output
        return output


def pytest_fail(message: str) -> None:
    import pytest

    pytest.fail(message, pytrace=False)


if __name__ == "__main__":
    run(sys.argv[1], json.loads(sys.argv[2]), [int(fd) for fd in sys.argv[3:]])
