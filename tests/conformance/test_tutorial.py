"""Channels' chat tutorial, from its start on: the servers do what its readers expect.

Its last part tests in a browser that those in one room hear one another, and nobody in
another room does; here two websocket clients do the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.typing import Origin

from djasgi.options import SERVERS
from tests.support.process import TIMEOUT
from tests.support.server import Server, copy_project


@pytest.fixture(scope="module", params=SERVERS)
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    root: Path = copy_project("tutorial", tmp_path_factory.mktemp("tutorial"))
    with Server(root, "--server", request.param) as process:
        yield process.ready()
        assert process.stop() == 0
        errors = process.matches(r" ERROR ")
        assert len(errors) == len(process.matches(r"^\s*ValueError: No route found")), (
            process.log
        )


def enter(site: Server, path: str, name: str = "127.0.0.1") -> ClientConnection:
    origin = Origin(f"http://{name}:{site.port}")
    return site.websocket(f"/ws/{path}/", origin=origin)


def say(visitor: ClientConnection, message: str) -> None:
    visitor.send(json.dumps({"message": message}))


def heard(visitor: ClientConnection) -> str:
    message: str = json.loads(visitor.recv(TIMEOUT))["message"]
    return message


def test_pages(site: Server) -> None:
    assert site.get("/chat/", {"Host": "localhost"})[0].status == 200
    response, text = site.get("/chat/lobby/", {"Host": "localhost"})
    assert response.status == 200
    assert '"lobby"' in text


def test_message_comes_back_without_a_channel_layer(site: Server) -> None:
    with enter(site, "steps/lobby") as visitor:
        say(visitor, "hello")
        assert heard(visitor) == "hello"


@pytest.mark.parametrize("kind", ["chat", "async"])
def test_those_in_one_room_hear_one_another(site: Server, kind: str) -> None:
    with enter(site, f"{kind}/one") as ann, enter(site, f"{kind}/one") as bob:
        for speaker, message in ((ann, "hello"), (bob, "caf\xe9 \U0001f600")):
            say(speaker, message)
            assert [heard(ann), heard(bob)] == [message, message]


@pytest.mark.parametrize("kind", ["chat", "async"])
def test_those_in_another_room_hear_nothing(site: Server, kind: str) -> None:
    with enter(site, f"{kind}/one") as ann, enter(site, f"{kind}/two") as eve:
        say(ann, "hello")
        assert heard(ann) == "hello"
        say(eve, "world")
        assert heard(eve) == "world"


def test_more_visitors_than_threads(site: Server) -> None:
    """Synchronous consumers, each of which waits for the channel layer."""
    with ExitStack() as stack:
        visitors = [stack.enter_context(enter(site, "chat/many")) for _ in range(40)]
        for visitor in visitors[:5]:
            say(visitor, "all?")
        assert {heard(visitor) for visitor in visitors for _ in range(5)} == {"all?"}


def test_page_of_another_site_is_refused(site: Server) -> None:
    with pytest.raises(InvalidStatus) as refused:
        enter(site, "chat/one", "elsewhere.example")
    assert refused.value.response.status_code == 403


def test_room_that_leads_nowhere(site: Server) -> None:
    """Channels raises, and the client is refused."""
    with pytest.raises(InvalidStatus) as refused:
        enter(site, "nowhere/one")
    assert refused.value.response.status_code == 500
    site.wait_for(r"^\s*ValueError: No route found")
