"""Each example, started in its folder by the command of its README, on every server."""

from __future__ import annotations

import http.client
import json
import re
import shlex
import signal
import socket

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from djasgi.options import SERVERS
from tests.support.command import DJASGI, EXAMPLES, environment
from tests.support.process import TIMEOUT, Process

ADDRESS = r"http://127\.0\.0\.1:(\d+)"

each_server = pytest.mark.parametrize("server", SERVERS)


class Example(Process):
    """An example that serves on a free port."""

    def __init__(self, name: str, server: str, *arguments: str) -> None:
        command = (*DJASGI, "serve", *arguments, "--port", "0", "--server", server)
        super().__init__(command, cwd=EXAMPLES / name, env=environment())

    @property
    def port(self) -> int:
        """Printed once it accepts connections."""
        return int(self.wait_for(ADDRESS)[1])

    def get(self, path: str) -> tuple[http.client.HTTPResponse, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response, response.read().decode()
        finally:
            connection.close()


@each_server
def test_minimal_shows_who_serves_it(server: str) -> None:
    with Example("minimal", server) as example:
        home, page = example.get("/")
        asynchronous, text = example.get("/async/")

        assert home.status == 200
        assert re.search(rf"<dt>Server</dt><dd>{server} \d", page)
        assert "<dt>Settings</dt><dd>mysite.settings</dd>" in page
        assert asynchronous.status == 200
        assert "Loop" in text
        assert example.stop() == 0


@each_server
def test_minimal_finishes_its_slow_page_when_it_is_stopped(server: str) -> None:
    with Example("minimal", server) as example:
        slow = socket.create_connection(("127.0.0.1", example.port), TIMEOUT)
        with slow:
            slow.sendall(b"GET /slow/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            # Connections are accepted in turn: the first is there when this is answered.
            example.get("/async/")
            example.signal(signal.SIGTERM)
            response = http.client.HTTPResponse(slow)
            response.begin()

            assert (response.status, response.read()) == (200, b"Worth the wait.\n")
        assert example.wait() == 0


@each_server
def test_environments_serves_development_without_being_told(server: str) -> None:
    with Example("environments", server) as example:
        assert json.loads(example.get("/")[1]) == {
            "environment": "development",
            "settings": "config.settings.development",
            "debug": True,
        }
        assert example.stop() == 0


@each_server
def test_environments_serves_production_by_its_procfile(server: str) -> None:
    procfile = (EXAMPLES / "environments" / "Procfile").read_text()
    web = re.search(r"^web: djasgi serve (.+)$", procfile, re.MULTILINE)
    assert web

    with Example("environments", server, *shlex.split(web[1])) as example:
        assert json.loads(example.get("/")[1]) == {
            "environment": "production",
            "settings": "config.settings.production",
            "debug": False,
        }
        assert example.stop() == 0


@each_server
def test_chat_passes_a_message_to_everybody_in_the_room(server: str) -> None:
    with Example("chat", server) as example:
        assert example.get("/")[0].status == 200
        base = f"ws://127.0.0.1:{example.port}/ws"
        origin = Origin(f"http://127.0.0.1:{example.port}")

        with (
            connect(f"{base}/lobby/", origin=origin) as ann,
            connect(f"{base}/lobby/", origin=origin) as bob,
            connect(f"{base}/kitchen/", origin=origin) as eve,
        ):
            ann.send("hello")
            heard = [ann.recv(TIMEOUT), bob.recv(TIMEOUT)]
            eve.send("anybody?")

            assert heard == ["hello", "hello"]
            assert eve.recv(TIMEOUT) == "anybody?"
        assert example.stop() == 0


@each_server
def test_chat_refuses_the_pages_of_other_sites(server: str) -> None:
    with Example("chat", server) as example:
        url = f"ws://127.0.0.1:{example.port}/ws/lobby/"

        with (
            pytest.raises(InvalidStatus) as refused,
            connect(url, origin=Origin("http://elsewhere.example")),
        ):
            pass

        assert refused.value.response.status_code == 403
        assert example.stop() == 0


@each_server
def test_wrapped_answers_health_itself_and_mounts_django(server: str) -> None:
    with Example("wrapped", server) as example:
        health, ok = example.get("/health")
        site, page = example.get("/site/")
        missing, _ = example.get("/elsewhere")

        assert (health.status, ok) == (200, "ok\n")
        assert site.status == 200
        assert re.match(r"Django at /site/, .* started \d\d:\d\d:\d\d\.", page)
        assert missing.status == 404
        for response in (health, site, missing):
            assert re.fullmatch(r"app;dur=\d+\.\d", response.headers["Server-Timing"])
        assert example.stop() == 0
