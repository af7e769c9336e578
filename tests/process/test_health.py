"""What a load balancer is told, whatever the application and Django's security do."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.support.probes import probes
from tests.support.process import TIMEOUT
from tests.support.server import Server, answer, send, tcp

PATHS = ("--health-path", "/live", "--ready-path", "/ready")


def probe(process: Server, path: str, method: str = "GET") -> tuple[int, str]:
    with process.connect() as sock:
        sock.settimeout(TIMEOUT)
        request = f"{method} {path} HTTP/1.1\r\nHost: 10.0.0.1\r\nConnection: close"
        sock.sendall(f"{request}\r\n\r\n".encode())
        with sock.makefile("rb") as file:
            head, _, body = file.read().partition(b"\r\n\r\n")
    assert b"cache-control: no-store" in head.lower()
    return int(head.split()[1]), body.decode()


@probes("health_path", "ready_path")
def test_it_is_answered_outside_of_django(server: str, live: Path) -> None:
    """Django refuses this host, and sends everybody to HTTPS."""
    arguments = ("--server", server, *PATHS, "--root-path", "/app")
    with Server(live, *arguments, env={"STRICT": "1"}) as process:
        process.ready()
        assert process.get("/")[0].status == 400
        for path in PATHS[1::2]:
            assert probe(process, path) == (200, "ok\n")
            assert probe(process, path, "HEAD") == (200, "")
        with process.connect() as sock:
            sock.sendall(b"POST /live HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            assert answer(sock)[0].status == 400  # that is the application
        process.wait_for("POST /app/live HTTP/1.1 400")
        assert process.stop() == 0
    assert not process.matches("(GET|HEAD) /(live|ready)")


@probes("drain_delay")
def test_it_is_not_ready_while_it_is_about_to_stop(server: str, live: Path) -> None:
    """In all workers at once, and everything else still works; live it is."""
    arguments = ("--server", server, "--workers", "2", "--drain-delay", "2")
    with Server(live, *arguments, *PATHS, "--log-level", "debug") as process:
        process.ready()
        with process.connect() as kept:
            send(kept, "/ready")
            assert answer(kept)[0].status == 200
            # An old worker on its way out says ready: the instance is.
            process.reload()
            send(kept, "/ready")
            assert answer(kept)[0].status == 200
        process.signal(signal.SIGTERM)
        process.wait_for("not ready any more; stopping in 2 s")
        for _ in range(4):
            assert probe(process, "/ready") == (503, "stopping\n")
        assert probe(process, "/live") == (200, "ok\n")
        assert process.seen()["version"] == 1
        assert process.wait() == 0
    assert process.matches("GET /ready HTTP/1.1 503")


def test_the_paths_are_exact(live: Path) -> None:
    with Server(live, *PATHS) as process:
        port = process.ready().port
        for path in ("/live/", "/LIVE", "/x/live"):
            with tcp(port) as sock:
                send(sock, path)
                assert answer(sock)[0].status == 404
        assert process.stop() == 0
