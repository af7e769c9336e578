"""Threads of one's own, on the three servers: what is isolated, and what still works."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest

from djasgi.options import SERVERS
from tests.support.leased import ROWS, Mixture, at_once, leased, open_files, open_stream
from tests.support.process import until
from tests.support.server import Gate, Server, answer, send

Start = Callable[..., Server]

REQUESTS = int(os.environ.get("SOAK_REQUESTS", "400"))
"""Requests of the stress test; `make soak` asks for 10,000."""


@pytest.fixture(params=SERVERS)
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Starts the project on each server; it must stop well."""
    with ExitStack() as stack:

        def started(*arguments: str, **variables: str) -> Server:
            process = Server(
                leased(tmp_path),
                *("--server", request.param, "--no-access-log", *arguments),
                env=variables,
            )
            stack.enter_context(process)
            return process.ready()

        yield started


def state(server: Server) -> dict[str, Any]:
    response, text = server.get("/state/")
    assert response.status == 200, text
    facts: dict[str, Any] = json.loads(text)
    return facts


def body(server: Server, path: str) -> str:
    response, text = server.get(path)
    assert response.status == 200, text
    return text


def test_a_tenant_in_a_thread_local_stays_with_its_request(start: Start) -> None:
    """With threads that requests share hop by hop nearly all read another's tenant."""
    server = start("--threads", "1:8")
    mixture = Mixture(server, 1)
    calls = [
        partial(mixture.checked, f"/awaits/?seconds=0.01&tenant={number}", str(number))
        for number in range(120)
    ]
    at_once(16, calls)

    until(lambda: state(server)["requests"] <= 8, "what exceeds MAX ends")
    assert server.stop() == 0


def test_rows_are_read_while_other_requests_end(start: Start) -> None:
    """On a shared thread, the end of another request closes the cursor's connection."""
    server = start("--threads", "1:4")
    calls: list[Callable[[], str]] = []
    for _ in range(12):
        calls += [partial(body, server, "/rows/"), partial(body, server, "/count/")]

    assert at_once(8, calls) == [str(ROWS)] * 24
    assert server.stop() == 0


def test_a_task_of_a_view_uses_the_database_after_the_response(start: Start) -> None:
    """asgiref lets no task call anything after the context of its request has ended; and
    on any thread it would see what another request has left there."""
    with Gate() as gate:
        server = start("--threads", "1", **gate.variables)
        assert body(server, "/late/?tenant=first") == "accepted"
        gate.arrived()
        until(lambda: state(server)["requests"] == 1, "the request has ended")
        gate.open()
        server.wait_for(f"^late: {ROWS} {ROWS} False$")
        until(lambda: state(server)["requests"] == 1, "its thread ends with it")
        assert server.stop() == 0


def test_a_task_of_a_consumer_uses_the_database_after_the_disconnect(
    start: Start,
) -> None:
    """A lease that ends with the connection breaks what works with Channels."""
    with Gate() as gate:
        server = start("--threads", "1", **gate.variables)
        with server.websocket("/late/"):
            gate.arrived()
        server.wait_for("^disconnected$")
        until(lambda: state(server)["leases"] == 0, "the connection has ended")
        gate.open()
        server.wait_for(f"^late: {ROWS}$")
        until(lambda: state(server)["websockets"] <= 1, "its thread ends with it")
        assert server.stop() == 0


def test_connections_do_not_wait_for_one_another(start: Start) -> None:
    """One thread for all of them, as without djasgi, is blocked by one of them."""
    with Gate() as gate:
        server = start("--threads", "4", **gate.variables)
        body(server, "/sync/?tenant=first")
        expected = f"djasgi-websocket False {ROWS}"
        with server.websocket("/sync/") as one, server.websocket("/sync/") as two:
            one.send("block")
            gate.arrived()
            two.send("now")
            assert two.recv() == expected
            gate.open()
            assert one.recv() == expected
        assert server.stop() == 0


def test_idle_connections_hold_no_thread(start: Start) -> None:
    """Leases that are exclusive until their end hold one for each open connection."""
    server = start("--threads", "1:4")
    with ExitStack() as stack:
        sockets = [stack.enter_context(server.websocket("/sync/")) for _ in range(20)]
        for _ in range(2):
            for websocket in sockets:
                websocket.send("now")
                websocket.recv()
        assert state(server)["leases"] == 20
        assert state(server)["websockets"] <= 4
    assert server.stop() == 0


def test_a_consumer_reads_rows_while_others_use_the_database(start: Start) -> None:
    """A thread given back between two chunks is closed under the cursor."""
    server = start("--threads", "2:4")
    with ExitStack() as stack:
        reading = [stack.enter_context(server.websocket("/rows/")) for _ in range(4)]
        other = stack.enter_context(server.websocket("/sync/"))
        for websocket in reading:
            websocket.send("read")
        for _ in range(20):
            other.send("now")
            assert other.recv() == f"djasgi-websocket False {ROWS}"
        assert [websocket.recv() for websocket in reading] == [str(ROWS)] * 4
    assert server.stop() == 0


def test_a_view_calls_its_own_server(start: Start) -> None:
    """With one thread that requests are bound to on arrival it waits for itself."""
    server = start("--threads", "1:2")
    for _ in range(3):
        assert json.loads(body(server, "/own/"))["leases"] == 1
    assert server.stop() == 0


def test_synchronous_and_asynchronous_code_call_each_other(start: Start) -> None:
    """A second hop that waits for the lease's thread, which waits for it, never ends."""
    server = start("--threads", "1")
    assert body(server, "/nested/?tenant=a") == "a,a"
    assert body(server, "/elsewhere/") == "True"
    assert server.stop() == 0


def test_streams_starve_nobody(start: Start) -> None:
    """With a maximum for all threads, 16 of 200 open event streams stop the server."""
    server = start("--threads", "1:16")
    with ExitStack() as stack:
        calls = [partial(open_stream, server)] * 200
        for sock in at_once(8, calls):
            stack.enter_context(sock)
        for number in range(30):
            assert body(server, f"/sync/?tenant={number}") == f"{number},{number}"
        assert state(server)["leases"] == 200
    until(lambda: state(server)["leases"] == 0, "all have ended")
    until(lambda: state(server)["requests"] <= 16, "what exceeds MAX ends")
    assert server.stop() == 0


def test_blocked_views_block_nobody_else(start: Start) -> None:
    """Bound on arrival, in turn, three of four wait until a blocked view has ended."""
    with Gate() as gate:
        server = start("--threads", "4", **gate.variables)
        with ExitStack() as stack:
            blocked = [stack.enter_context(server.connect()) for _ in range(3)]
            for sock in blocked:
                send(sock, "/block/?tenant=b")
                gate.arrived()
            calls = [partial(body, server, "/sync/?tenant=s")] * 40
            assert at_once(8, calls) == ["s,s"] * 40
            gate.open()
            assert [answer(sock)[1] for sock in blocked] == ["b,b"] * 3
        assert server.stop() == 0


def test_a_thread_of_a_cancelled_request_is_not_free_while_it_works(
    start: Start,
) -> None:
    """A pool that counts requests gives away the thread that works on."""
    with Gate() as gate:
        server = start("--threads", "2", **gate.variables)
        with server.connect() as sock:
            send(sock, "/block/?tenant=gone")
            gate.arrived()
        for number in range(20):
            assert body(server, f"/awaits/?tenant={number}") == f"{number},{number}"
        assert not server.matches("^worked$")
        gate.open()
        server.wait_for("^worked$")
        until(lambda: state(server)["leases"] == 0, "it has ended")
        until(lambda: state(server)["requests"] <= 2, "what exceeds MAX ends")
        assert server.stop() == 0


def test_a_view_forks(start: Start) -> None:
    """The child has none of the threads: a pool that believes it has waits for ever."""
    server = start("--threads", "1:4")
    for _ in range(2):
        assert body(server, "/fork/") == "0"
    assert body(server, "/sync/?tenant=a") == "a,a"
    assert server.stop() == 0


def test_a_stop_does_not_wait_for_ever_for_synchronous_code(start: Start) -> None:
    """It says what it waits for; without a bound, nobody knows why it does not stop."""
    with Gate() as gate:
        server = start("--threads", "2", "--graceful-timeout", "1", **gate.variables)
        with server.connect() as sock:
            send(sock, "/block/")
            gate.arrived()
            server.signal(SIGTERM)
            server.wait_for(r"synchronous code still runs \d s after the last request")
            gate.open()
            assert server.wait() == 0


def test_without_threads_it_is_as_without_djasgi(start: Start) -> None:
    server = start("--threads", "0")
    assert body(server, "/awaits/?tenant=a") == "a,a"
    assert (state(server)["requests"], state(server)["leases"]) == (0, -1)
    assert server.stop() == 0


@pytest.mark.timeout(60 + REQUESTS)
def test_random_requests_leave_nothing_behind(start: Start) -> None:
    """Blocking, failing, cut off and late ones: no lease, thread or connection is left,
    none is served by another's thread-locals or context variables."""
    server = start("--threads", "1:6")
    seed = int.from_bytes(os.urandom(4))
    mixture = Mixture(server, seed)
    print(f"seed {seed}")
    at_once(24, [mixture.call() for _ in range(REQUESTS)])

    until(lambda: state(server)["leases"] == 0, "no lease is left")
    until(lambda: state(server)["requests"] <= 6, "no thread above the maximum")
    assert state(server)["waiting"] == 0
    database = str(server.cwd / "db.sqlite3")
    until(
        lambda: database not in open_files(state(server)["pid"]),
        "no database connection is left",
    )
    assert server.stop() == 0
