"""`djasgi serve` as processes: how many, what becomes of them, and what they know."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import pytest
import trustme
from websockets.exceptions import ConnectionClosed

from djasgi.options import SERVERS
from tests.support.process import TIMEOUT, until
from tests.support.server import (
    Gate,
    Server,
    answer,
    copy_project,
    refused,
    reserved,
    send,
    tcp,
    unix,
)


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return copy_project("probe", tmp_path)


@pytest.fixture
def gate() -> Iterator[Gate]:
    with Gate() as gate:
        yield gate


def ask(process: Server, path: str) -> socket.socket:
    """A connection on which the request was sent; the answer is still to come."""
    sock = process.connect()
    send(sock, path)
    return sock


@pytest.mark.parametrize("settings", ["probe.settings", "probe.with_daphne"])
def test_each_worker_is_a_process_that_serves(
    server: str, settings: str, project: Path, gate: Gate
) -> None:
    """Also under `daphne` in INSTALLED_APPS, which installs a reactor of its own."""
    arguments = ("--server", server, "--workers", "3", "--settings", settings)
    with Server(project, *arguments, env=gate.variables) as process:
        process.ready()
        assert len(process.workers()) == 3
        # Who is blocked accepts nothing, so each request finds another worker.
        blocked, pids = [], []
        for _ in range(3):
            blocked.append(ask(process, "/block/"))
            pids.append(gate.arrived())
        assert sorted(pids) == sorted(process.workers())
        gate.open()
        for sock in blocked:
            with sock:
                assert answer(sock)[1] == "blocked"
        assert process.stop() == 0


def test_a_killed_worker_is_replaced_and_meanwhile_the_others_serve(
    server: str, project: Path
) -> None:
    arguments = ("--server", server, "--workers", "2")
    with Server(project, *arguments) as process:
        process.ready()
        before = process.workers()
        victim = process.seen()["pid"]
        os.kill(victim, signal.SIGKILL)

        assert process.seen()["pid"] in before
        process.wait_for(rf"worker \d \(pid {victim}\) was killed by SIGKILL")
        process.wait_for("lifespan: startup", count=3)
        after = process.workers()
        assert victim not in after
        assert len(after) == 2
        assert process.stop() == 0


def test_a_killed_supervisor_leaves_nobody(server: str, project: Path) -> None:
    with Server(project, "--server", server, "--workers", "2") as process:
        port = process.ready().port
        process.signal(signal.SIGKILL)
        until(lambda: process.session() == [], "nobody is left")
        assert refused(port)


def test_a_killed_supervisor_does_not_cut_a_request(
    server: str, project: Path, gate: Gate
) -> None:
    arguments = ("--server", server, "--workers", "2")
    with Server(project, *arguments, env=gate.variables) as process:
        port = process.ready().port
        with ask(process, "/hold/") as sock:
            gate.arrived()
            process.signal(signal.SIGKILL)
            until(lambda: refused(port), "nobody accepts any more")
            gate.open()
            assert answer(sock)[1] == "held"
        until(lambda: process.session() == [], "nobody is left")


@pytest.mark.parametrize("settings", ["probe.settings", "probe.with_daphne"])
def test_requests_in_flight_finish_on_a_stop(
    server: str, settings: str, project: Path, gate: Gate
) -> None:
    """Asynchronous, in a thread, and a response half of which was sent."""
    arguments = ("--server", server, "--workers", "2", "--settings", settings)
    with Server(project, *arguments, env=gate.variables) as process:
        port = process.ready().port
        with (
            ask(process, "/hold/") as held,
            ask(process, "/sync/") as working,
            ask(process, "/stream/") as streaming,
            process.websocket() as ws,
        ):
            for _ in range(3):
                gate.arrived()
            response = HTTPResponse(streaming)
            response.begin()
            assert response.read(6) == b"first,"

            process.signal(signal.SIGTERM)
            process.wait_for("stopping")
            with pytest.raises(ConnectionClosed):
                ws.recv(TIMEOUT)
            assert ws.protocol.close_code == 1012
            until(lambda: refused(port), "nobody accepts any more")
            gate.open()

            assert answer(held)[1] == "held"
            assert answer(working)[1] == "worked"
            assert response.read() == b"last"
        assert process.wait() == 0
        assert len(process.matches("lifespan: shutdown")) == 2
        assert process.lines[-1].endswith(" stopped")


def test_a_second_ctrl_c_cuts_what_is_in_flight(
    server: str, project: Path, gate: Gate
) -> None:
    arguments = ("--server", server, "--workers", "2")
    with Server(project, *arguments, env=gate.variables) as process:
        process.ready()
        with ask(process, "/hold/"):
            gate.arrived()
            start = time.monotonic()
            process.signal_group(signal.SIGINT)
            process.wait_for("stopping")
            process.signal_group(signal.SIGINT)
            assert process.wait() == 0
            # The graceful timeout is 20 seconds.
            assert time.monotonic() - start < 10


def test_the_unix_socket_is_removed(server: str, project: Path) -> None:
    path = project / "s"
    with Server(project, "--server", server, address=("--uds", str(path))) as process:
        process.ready()
        with unix(path) as sock:
            send(sock, "/")
            assert answer(sock)[0].status == 200
        assert process.stop() == 0
    assert not path.exists()


def test_nothing_listens_before_the_application_is_ready(
    server: str, project: Path, gate: Gate
) -> None:
    (project / "late.py").write_text(
        "from probe.urls import gate\n"
        "with gate() as sock:\n"
        "    sock.recv(1)\n"
        "from probe.asgi import application\n"
    )
    with reserved() as port:
        address = ("--port", str(port))
        arguments = ("late:application", "--server", server)
        with Server(
            project, *arguments, address=address, env=gate.variables
        ) as process:
            gate.arrived()
            assert refused(port)
            gate.open()
            process.ready()
            assert process.seen()["path"] == "/"
            assert process.stop() == 0


def test_secrets_are_in_no_command_line_and_no_environment(
    server: str, project: Path
) -> None:
    """Of a file for the project, and of the key: they reach it in memory only."""
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    leaf = trustme.CA().issue_cert("localhost")
    leaf.cert_chain_pems[0].write_to_path(project / "chain.pem")
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    locked = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open-sesame")
    )
    (project / "key.pem").write_bytes(locked)
    (project / "password").write_text("open-sesame\n")
    (project / "variables").write_text("TOKEN=hunter2\n")
    with Server(
        project,
        *("--server", server, "--workers", "2", "--env-file", "variables"),
        *("--ssl-certfile", "chain.pem", "--ssl-keyfile", "key.pem"),
        *("--ssl-keyfile-password-file", "password"),
    ) as process:
        process.ready()
        # Supervisor, preloader and workers; those between them are gone soon.
        until(lambda: len(process.session()) == 4, "four processes are left")
        for pid in process.session():
            for name in ("cmdline", "environ"):
                known = Path(f"/proc/{pid}/{name}").read_bytes()
                assert b"hunter2" not in known
                assert b"open-sesame" not in known
        assert process.stop() == 0
    assert "hunter2" not in process.log
    assert "open-sesame" not in process.log


def test_workers_share_one_port_and_the_request_ids_differ(
    server: str, project: Path
) -> None:
    """Forked from one process, they must not make the same random numbers."""
    arguments = ("--server", server, "--workers", "2", "--log-format", "json")
    with Server(project, *arguments) as process:
        port = process.ready().port
        for _ in range(20):
            with tcp(port) as sock:
                send(sock, "/")
                assert answer(sock)[0].status == 200
        process.wait_for("djasgi.access", count=20)
        lines = [line for line in process.lines if "djasgi.access" in line]
        assert len({json.loads(line)["request_id"] for line in lines}) == 20
        assert process.stop() == 0


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="it needs /proc")
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_nothing_waits_for_the_acknowledgement_of_what_went_before(
    server: str, project: Path, loop: str
) -> None:
    """Without TCP_NODELAY a response in two writes takes 40 ms on a kept connection."""
    with Server(project, "--server", server, "--loop", loop) as process:
        process.ready()
        assert process.seen("/nodelay/") is True
        assert process.stop() == 0


SUPERVISION = {
    "LISTEN_PID": "1",
    "LISTEN_FDS": "1",
    "LISTEN_FDNAMES": "web",
    "NOTIFY_SOCKET": "",
    "WATCHDOG_PID": "1",
    "WATCHDOG_USEC": "30000000",
}


@pytest.mark.parametrize("workers", ["0", "1"])
def test_what_systemd_tells_djasgi_is_gone_before_the_settings(
    server: str, workers: str, project: Path
) -> None:
    with (project / "probe" / "settings.py").open("a") as settings:
        settings.write(
            "import os, pathlib\n"
            f"LEFT = [name for name in {sorted(SUPERVISION)} if name in os.environ]\n"
            "pathlib.Path('left').write_text(repr(LEFT))\n"
        )
    arguments = ("--server", server, "--workers", workers)
    with Server(project, *arguments, env=SUPERVISION) as process:
        process.ready()
        assert process.stop() == 0
    assert (project / "left").read_text() == "[]"
