"""Each example, started in its folder by the command of its README, on every server."""

from __future__ import annotations

import json
import re
import shlex
import signal

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from djasgi.options import SERVERS
from tests.support.command import EXAMPLES
from tests.support.process import TIMEOUT
from tests.support.server import Server, answer, send

each_server = pytest.mark.parametrize("server", SERVERS)


def start(name: str, server: str, *arguments: str) -> Server:
    """An example that serves on a free port."""
    return Server(EXAMPLES / name, *arguments, "--server", server)


@each_server
def test_minimal_shows_who_serves_it(server: str) -> None:
    with start("minimal", server) as example:
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
    with start("minimal", server) as example:
        with example.connect() as slow:
            send(slow, "/slow/")
            # Connections are accepted in turn: the first is there when this is answered.
            example.get("/async/")
            example.signal(signal.SIGTERM)
            response, text = answer(slow)

            assert (response.status, text) == (200, "Worth the wait.\n")
        assert example.wait() == 0


@each_server
def test_environments_serves_development_without_being_told(server: str) -> None:
    with start("environments", server) as example:
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

    with start("environments", server, *shlex.split(web[1])) as example:
        assert json.loads(example.get("/")[1]) == {
            "environment": "production",
            "settings": "config.settings.production",
            "debug": False,
        }
        assert example.stop() == 0


@each_server
def test_chat_passes_a_message_to_everybody_in_the_room(server: str) -> None:
    with start("chat", server) as example:
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
    with start("chat", server) as example:
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
    with start("wrapped", server) as example:
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
