"""Each option, through the command, on each server: what a client sees of it."""

from __future__ import annotations

import json
import re
import socket
import ssl
import stat
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from http.client import IncompleteRead
from pathlib import Path
from signal import SIGTERM
from time import monotonic
from typing import Any

import pytest
import trustme
from websockets.exceptions import ConnectionClosed

from djasgi.options import SERVERS
from tests.support import http2
from tests.support.command import djasgi
from tests.support.probes import probes
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

SHORT = 0.6
"""Seconds, for the limits of clients that are told to be slow."""

WELL_BELOW_THE_DEFAULT = 8.0
"""Seconds within which a limit of `SHORT` has done its work, on a busy machine too."""

MAX_MESSAGE = 1000

NATIVE = {
    "uvicorn": "ws_per_message_deflate=off",
    "hypercorn": "keep_alive_max_requests=2",
    "daphne": "http_timeout=1",
}


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return copy_project("probe", tmp_path)


Start = Callable[..., Server]
Pool = Callable[[str, Callable[[str, Path, Start], Server]], Server]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Processes that several probes share: started when first asked for."""
    running: dict[tuple[str, str], Server] = {}
    with ExitStack() as stack:
        # Whoever comes to this gate waits for ever.
        variables = stack.enter_context(Gate()).variables

        def get(server: str, kind: Callable[[str, Path, Start], Server]) -> Server:
            key = (server, kind.__name__)
            if key not in running:
                folder = tmp_path_factory.mktemp(kind.__name__)

                def start(
                    *arguments: str, env: Mapping[str, str] = variables, **more: Any
                ) -> Server:
                    process = Server(
                        copy_project("probe", folder),
                        *("--server", server, *arguments),
                        env={**variables, **env},
                        **more,
                    )
                    return stack.enter_context(process)

                running[key] = kind(server, folder, start)
            return running[key]

        yield get
        for process in running.values():
            assert process.stop() == 0, process.log


@pytest.fixture
def plain(server: str, pool: Pool) -> Server:
    """Nothing is asked for but the server."""

    def plain(_server: str, _folder: Path, start: Start) -> Server:
        return start()

    return pool(server, plain)


@pytest.fixture
def full(server: str, pool: Pool) -> Server:
    """As much as possible is asked for at once."""

    def full(server: str, folder: Path, start: Start) -> Server:
        (folder / "variables").write_text("FROM_FILE=of the file\nINHERITED=no\n")
        options = ["probe.asgi:factory", "--factory", "--settings", "probe.staging"]
        options += ["--env-file", str(folder / "variables")]
        options += ["--middleware", "probe.wrappers:Outer"]
        options += ["--middleware", "probe.wrappers:Inner"]
        options += ["--root-path", "/shop", "--lifespan", "on", "--loop", "asyncio"]
        options += ["--forwarded-allow-ips", "192.0.2.1, 10.0.0.0/8"]
        options += ["--header", "X-Served-By: a probe", "--header", "X-Two: 2"]
        options += ["--server-header", "--no-date-header", "--log-format", "json"]
        options += ["--keep-alive", str(SHORT), "--header-timeout", str(SHORT)]
        options += ["--ws-max-size", str(MAX_MESSAGE), "--ws-ping-interval", str(SHORT)]
        options += ["--ws-ping-timeout", str(SHORT)]
        options += ["-o", NATIVE[server]]
        binds = ["127.0.0.1:0", "[::1]:0", f"unix:{folder / 's'}"]
        address = [word for bind in binds for word in ("--bind", bind)]
        return start(
            *options,
            "--uds-mode",
            "600",
            address=address,
            env={"INHERITED": "yes"},
        ).ready()

    return pool(server, full)


@pytest.fixture
def quiet(server: str, pool: Pool) -> Server:
    """Only errors are logged, and requests; so its address is known beforehand."""

    def quiet(_server: str, folder: Path, start: Start) -> Server:
        process = start(
            *("--log-level", "error", "--no-proxy-headers", "--lifespan", "off"),
            *("--loop", "uvloop", "--workers", "0", "--threads", "0"),
            address=("--uds", str(folder / "s")),
        )
        until((folder / "s").exists, "the unix socket")
        until(lambda: answers(folder / "s"), "an answer on the unix socket")
        return process

    return pool(server, quiet)


@pytest.fixture
def platform(server: str, pool: Pool) -> Server:
    """Nothing is typed; the variables of a platform say it all."""

    def platform(_server: str, _folder: Path, start: Start) -> Server:
        with reserved() as port:
            variables = {
                "PORT": str(port),
                "WEB_CONCURRENCY": "2",
                "FORWARDED_ALLOW_IPS": "192.0.2.1",
                "DJANGO_SETTINGS_MODULE": "probe.staging",
                "DJASGI_ACCESS_LOG": "off",
                "DJASGI_PRELOAD": "off",  # whose process would be counted
            }
            return start(address=(), env=variables).ready()

    return pool(server, platform)


def answers(path: Path) -> bool:
    try:
        unix(path).close()
    except ConnectionRefusedError:
        return False
    return True


def socket_of(process: Server) -> Path:
    """The unix socket of a shared process, beside its project."""
    return process.cwd.parent / "s"


# Project


@probes("app", "project")
def test_app_and_project_are_found_from_elsewhere(server: str, tmp_path: Path) -> None:
    root = copy_project("probe", tmp_path / "repository")
    arguments = ("probe.asgi:django", "--project", str(root), "--server", server)
    with Server(tmp_path, *arguments) as process:
        seen = process.ready().seen()
        assert process.matches(r"application: probe.asgi:django \(argument\)")
        # Alone, Django has no lifespan.
        assert (seen["settings"], seen["state"]) == ("probe.settings", {})
        assert process.stop() == 0


@probes("env")
def test_environment_chooses_settings_variables_and_options(
    server: str, project: Path
) -> None:
    (project / "pyproject.toml").write_text(
        '[tool.djasgi]\nserver = "uvicorn"\n'
        '[tool.djasgi.env.stage]\nsettings = "probe.staging"\n'
        f'server = "{server}"\nvariables = {{ STAGE = "of the table" }}\n'
    )
    with Server(project, "--env", "stage") as process:
        seen = process.ready().seen()
        assert (seen["settings"], seen["servers"]) == ("probe.staging", [server])
        assert process.get("/variable/STAGE/")[1] == "of the table"
        assert process.matches(r"environment: stage \(--env\)")
        assert process.stop() == 0


@probes("settings")
def test_settings_win_over_the_default_of_the_application(full: Server) -> None:
    assert full.seen()["settings"] == "probe.staging"


@probes("settings")
def test_inherited_settings_are_used(platform: Server) -> None:
    assert platform.seen()["settings"] == "probe.staging"


@probes("env_file")
def test_env_file_reaches_the_project_and_never_overrides(full: Server) -> None:
    assert full.get("/variable/FROM_FILE/")[1] == "of the file"
    assert full.get("/variable/INHERITED/")[1] == "yes"


@probes("factory")
def test_factory_is_called(full: Server) -> None:
    assert full.seen()["made"] is True


@probes("middleware")
def test_middleware_is_called_outermost_first(full: Server) -> None:
    assert full.seen()["order"] == ["Outer", "Inner"]


# Server


@probes("server")
def test_only_the_chosen_server_is_loaded(server: str, plain: Server) -> None:
    assert plain.seen()["servers"] == [server]
    assert plain.matches(rf"server: {server} \d[\d.]*, 1 worker \(--server\)")


@probes("workers")
def test_workers_of_the_platform_are_so_many_processes(platform: Server) -> None:
    assert len(platform.workers()) == 2
    assert platform.seen()["pid"] in platform.workers()


@probes("workers")
def test_no_worker_is_this_process(quiet: Server) -> None:
    with unix(socket_of(quiet)) as sock:
        send(sock, "/")
        assert json.loads(answer(sock)[1])["pid"] == quiet.pid
    assert quiet.workers() == []


@probes("workers")
def test_workers_auto_prints_its_arithmetic(server: str, project: Path) -> None:
    arguments = ("--workers", "auto", "--preload", "off")
    with Server(project, "--server", server, *arguments) as process:
        process.ready()
        number = int(process.wait_for(r"workers: (\d+) workers? = .*CPU")[1])
        assert len(process.workers()) == number
        assert process.stop() == 0


@probes("loop")
def test_loop_is_the_one_asked_for(full: Server, quiet: Server) -> None:
    assert full.seen()["loop"].startswith("asyncio.")
    with unix(socket_of(quiet)) as sock:
        send(sock, "/")
        assert json.loads(answer(sock)[1])["loop"] == "uvloop"


@probes("loop")
def test_loop_is_uvloop_by_itself(plain: Server) -> None:
    assert plain.seen()["loop"] == "uvloop"


@probes("threads")
def test_threads_are_those_of_a_pool_unless_switched_off(
    plain: Server, quiet: Server
) -> None:
    assert plain.seen()["thread"].startswith("djasgi-request-")
    with unix(socket_of(quiet)) as sock:
        send(sock, "/")
        assert not json.loads(answer(sock)[1])["thread"].startswith("djasgi")


@probes("lifespan")
def test_lifespan_state_reaches_the_views(plain: Server, full: Server) -> None:
    for process in (plain, full):
        assert process.seen()["state"] == {"started": "by lifespan"}
        assert len(process.matches("lifespan: startup")) == 1


@probes("lifespan")
def test_lifespan_off_asks_for_none(quiet: Server) -> None:
    with unix(socket_of(quiet)) as sock:
        send(sock, "/")
        assert json.loads(answer(sock)[1])["state"] == {}
    assert not quiet.matches("lifespan: ")


@probes("lifespan")
def test_lifespan_on_refuses_an_application_without(server: str, project: Path) -> None:
    arguments = ("probe.asgi:django", "--lifespan", "on", "--port", "0")
    result = djasgi("serve", *arguments, "--server", server, cwd=project)

    assert result.returncode == 3
    assert "The application has no lifespan (--lifespan on)." in result.stderr


@probes("lifespan")
def test_lifespan_ends_after_the_last_request(server: str, project: Path) -> None:
    with (
        Gate() as gate,
        Server(project, "--server", server, env=gate.variables) as process,
        process.connect() as sock,
    ):
        send(sock, "/hold/")
        gate.arrived()
        port = process.port
        process.signal(15)
        until(lambda: refused(port), "nobody accepts any more")
        assert not process.matches("lifespan: shutdown")
        gate.open()
        assert answer(sock)[1] == "held"
        assert process.wait() == 0
        assert len(process.matches("lifespan: shutdown")) == 1


@probes("native")
def test_native_setting_takes_effect(server: str, plain: Server, full: Server) -> None:
    match server:
        case "uvicorn":
            with plain.websocket(compression="deflate") as ws:
                assert ws.protocol.extensions
            with full.websocket(compression="deflate") as ws:
                assert not ws.protocol.extensions
        case "hypercorn":
            said = []
            for process in (plain, full):
                with process.connect() as sock:
                    send(sock, "/")
                    answer(sock)
                    send(sock, "/")
                    said.append(answer(sock)[0].headers.get("Connection"))
            assert said == [None, "close"]
        case "daphne":
            with unix(socket_of(full)) as sock:
                send(sock, "/hold/")
                assert answer(sock)[0].status == 503


@probes("native")
@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("no_such_thing=1", "has no such setting"),
        ("access_log=off", "belongs to djasgi|has no such setting"),
        ("backlog", "expected name=value"),
    ],
)
def test_native_setting_that_is_none_is_refused(
    server: str, setting: str, complaint: str, project: Path
) -> None:
    result = djasgi("serve", "--server", server, "-o", setting, cwd=project)

    assert (result.returncode, result.stdout) == (2, "")
    assert re.search(complaint, result.stderr)


# Address


@probes("host", "port")
def test_host_and_port(server: str, project: Path) -> None:
    with reserved() as port:
        address = ("--host", "localhost", "--port", str(port))
        with Server(project, "--server", server, address=address) as process:
            process.wait_for(rf"listening on http://localhost:{port}$")
            assert process.seen()["path"] == "/"
            assert process.stop() == 0


@probes("port", "host")
def test_port_of_the_platform_is_open_to_all(platform: Server) -> None:
    assert platform.matches(rf"listening on http://\[::\]:{platform.port}$")
    for host, remote in (("127.0.0.1", "127.0.0.1"), ("::1", "::1")):
        with tcp(platform.port, host) as sock:
            send(sock, "/")
            seen = json.loads(answer(sock)[1])
        assert seen["remote"].removeprefix("::ffff:") == remote


@probes("bind")
def test_several_addresses_are_served_at_once(full: Server) -> None:
    line = full.wait_for(r"listening on ([^\"]*)")[1]
    v4, v6, path = line.split(", ")
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", v4)
    assert re.fullmatch(r"http://\[::1\]:\d+", v6)
    remotes = []
    for sock in (
        full.connect(),
        tcp(int(v6.rpartition(":")[2]), "::1"),
        unix(Path(path.removeprefix("unix:"))),
    ):
        with sock:
            send(sock, "/")
            remotes.append(json.loads(answer(sock)[1])["remote"])
    assert remotes[:2] == ["127.0.0.1", "::1"]
    assert not remotes[2]


@probes("uds", "uds_mode")
def test_unix_socket_and_its_mode(full: Server, quiet: Server) -> None:
    asked = socket_of(full).stat().st_mode
    default = socket_of(quiet).stat().st_mode
    assert (stat.S_IMODE(asked), stat.S_IMODE(default)) == (0o600, 0o660)
    with unix(socket_of(quiet)) as sock:
        send(sock, "/")
        assert answer(sock)[0].status == 200


MOST_WAITING = struct.Struct("=28xI")
"""tcpi_sacked of a listening socket is its backlog: struct tcp_info, linux/tcp.h."""


@probes("fd", "backlog")
@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO is Linux's")
def test_inherited_socket_and_backlog(server: str, project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        arguments = ("--server", server, "--backlog", "7")
        with Server(
            project,
            *arguments,
            address=("--fd", str(listening.fileno())),
            pass_fds=(listening.fileno(),),
        ) as process:
            assert process.ready().port == listening.getsockname()[1]
            assert process.seen()["path"] == "/"
            info = listening.getsockopt(
                socket.IPPROTO_TCP, socket.TCP_INFO, MOST_WAITING.size
            )
            assert MOST_WAITING.unpack(info) == (7,)
            assert process.stop() == 0


AS_SYSTEMD = """
import fcntl, os, sys
fds = [fcntl.fcntl(int(n), fcntl.F_DUPFD_CLOEXEC, 10) for n in sys.argv[1].split(",")]
for target, fd in enumerate(fds, start=3):
    os.dup2(fd, target)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Hands sockets over as sd_listen_fds(3) says: from descriptor 3, for this process."""


@probes("fd")
def test_sockets_of_systemd_are_taken_and_not_told_to_the_project(
    server: str, project: Path
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as first,
        socket.create_server(("127.0.0.1", 0)) as second,
    ):
        fds = (first.fileno(), second.fileno())
        with Server(
            project,
            *("--server", server),
            address=(),
            env={"LISTEN_FDS": "2", "PORT": "1"},
            prefix=(sys.executable, "-c", AS_SYSTEMD, ",".join(map(str, fds))),
            pass_fds=fds,
        ) as process:
            process.ready()
            for sock in (first, second):
                with tcp(sock.getsockname()[1]) as client:
                    send(client, "/variable/LISTEN_FDS/")
                    assert answer(client)[1] == "(unset)"
            assert process.stop() == 0


# HTTP


@probes("root_path")
@pytest.mark.parametrize("path", ["/", "/shop/"])
def test_root_path_with_a_proxy_that_strips_and_one_that_does_not(
    full: Server, path: str
) -> None:
    seen = full.seen(path)
    assert (seen["path"], seen["path_info"]) == ("/shop/", "/")
    assert seen["uri"] == "http://localhost/shop/"


FORWARDED = {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https"}
BELIEVED = ("198.51.100.7", True)
NOT_BELIEVED = ("127.0.0.1", False)


def client_of(seen: dict[str, Any]) -> tuple[str, bool]:
    return seen["remote"].removeprefix("::ffff:"), seen["secure"]


@probes("proxy_headers", "forwarded_allow_ips")
def test_loopback_is_a_trusted_proxy_by_default(plain: Server) -> None:
    assert client_of(plain.seen(headers=FORWARDED)) == BELIEVED
    assert client_of(plain.seen()) == NOT_BELIEVED


@probes("forwarded_allow_ips")
def test_others_than_the_trusted_are_not_believed(
    full: Server, platform: Server
) -> None:
    assert client_of(full.seen(headers=FORWARDED)) == NOT_BELIEVED
    assert client_of(platform.seen(headers=FORWARDED)) == NOT_BELIEVED


@probes("forwarded_allow_ips")
def test_peer_on_a_unix_socket_is_believed(full: Server) -> None:
    with unix(socket_of(full)) as sock:
        send(sock, "/", FORWARDED)
        assert client_of(json.loads(answer(sock)[1])) == BELIEVED


@probes("proxy_headers")
def test_without_proxy_headers_nobody_is_believed(quiet: Server) -> None:
    with unix(socket_of(quiet)) as sock:
        send(sock, "/", FORWARDED)
        seen = json.loads(answer(sock)[1])
    assert not seen["remote"]
    assert seen["secure"] is False


def seconds_until_closed(sock: socket.socket) -> float:
    """How long the server leaves the connection open. It may refuse, but not answer."""
    start = monotonic()
    with suppress(ConnectionResetError):
        while received := sock.recv(1000):
            assert b" 200 " not in received
    return monotonic() - start


@probes("keep_alive")
def test_idle_connection_is_closed(full: Server) -> None:
    with full.connect() as sock:
        send(sock, "/")
        assert "Connection" not in answer(sock)[0].headers
        assert seconds_until_closed(sock) < WELL_BELOW_THE_DEFAULT


@probes("keep_alive")
def test_connection_is_kept_by_default(plain: Server) -> None:
    with plain.connect() as sock:
        for _ in range(3):
            send(sock, "/")
            assert answer(sock)[0].status == 200


@probes("header_timeout")
def test_head_that_does_not_come_is_not_waited_for(full: Server) -> None:
    with full.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        assert seconds_until_closed(sock) < WELL_BELOW_THE_DEFAULT


@probes("server_header", "date_header")
def test_server_and_date_header(server: str, plain: Server, full: Server) -> None:
    default = plain.get()[0].headers
    assert "Server" not in default
    assert len(default.get_all("Date", [])) == 1

    other = full.get()[0].headers
    assert other.get_all("Server") == [server]
    assert "Date" not in other


@probes("header")
def test_headers_are_added_to_each_response(full: Server) -> None:
    for path, status in (("/", 200), ("/no/such/page", 404)):
        response, _ = full.get(path)
        assert response.status == status
        assert response.headers["X-Served-By"] == "a probe"
        assert response.headers["X-Two"] == "2"


# Limits


AT_ONCE = 2
ANSWER_WITHIN = 2.0
MAX_BODY = 1024
MAX_HEAD = 2048


@pytest.fixture
def limited(server: str, pool: Pool) -> Server:
    """Little is allowed."""

    def limited(_server: str, _folder: Path, start: Start) -> Server:
        return start(
            *("--limit-concurrency", str(AT_ONCE)),
            *("--request-timeout", str(ANSWER_WITHIN)),
            *("--max-body-size", "1K", "--max-head-size", str(MAX_HEAD)),
        ).ready()

    return pool(server, limited)


@probes("limit_concurrency", "request_timeout")
def test_requests_at_once_and_the_time_they_may_take(limited: Server) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(limited.connect()) for _ in range(AT_ONCE)]
        # Nobody has asked for anything on these.
        for _ in range(AT_ONCE):
            stack.enter_context(limited.connect())
        start = monotonic()
        for sock in held:
            send(sock, "/hold/")
        until(lambda: limited.get()[0].status == 503, "too many requests")
        refusal, text = limited.get()
        assert (refusal.status, text) == (503, "Service Unavailable")
        assert refusal.headers["Retry-After"] == "1"
        for sock in held:
            late, text = answer(sock)
            assert (late.status, text) == (503, "Service Unavailable")
            assert "Retry-After" not in late.headers
        assert ANSWER_WITHIN * 0.9 < monotonic() - start < WELL_BELOW_THE_DEFAULT
        until(lambda: limited.get()[0].status == 200, "the cancelled are gone")

        def is_as_good_as_before() -> bool:
            send(held[0], "/")
            return bool(answer(held[0])[0].status == 200)

        # Not at once: Django ends a request a moment after its response.
        until(is_as_good_as_before, "the connection is served again")
    limited.wait_for("WARNING no response within 2 s: answered with 503")
    limited.wait_for(r"GET /hold/ HTTP/1\.1 503 ")
    assert "Traceback" not in limited.log


def upload(process: Server, head: str, body: bytes) -> tuple[int, str | None]:
    """The status of the answer, and what it says of the connection."""
    fields = f"POST / HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n"
    with process.connect() as sock:
        sock.sendall(fields.encode() + body)
        response, _ = answer(sock)
        return response.status, response.headers.get("Connection")


@probes("max_body_size")
def test_largest_body(limited: Server) -> None:
    chunk = b"%x\r\n" % MAX_BODY + bytes(MAX_BODY) + b"\r\n"
    chunked = "Transfer-Encoding: chunked"
    length = f"Content-Length: {MAX_BODY}"
    assert upload(limited, length, bytes(MAX_BODY))[0] == 200
    assert upload(limited, chunked, chunk + b"0\r\n\r\n")[0] == 200
    # Neither is waited for until its end, which does not come.
    more = f"Content-Length: {MAX_BODY + 1}"
    assert upload(limited, more, b"") == (413, "close")
    assert upload(limited, chunked, chunk + b"1\r\nx\r\n") == (413, "close")
    limited.wait_for(r"POST / HTTP/1\.1 413 ")
    assert "Traceback" not in limited.log


@probes("max_head_size")
def test_largest_head(limited: Server, plain: Server) -> None:
    for process, fits, too_large in (
        (limited, MAX_HEAD - 100, MAX_HEAD),
        (plain, 65_000, 65_536),
    ):
        assert process.get(headers={"X-Large": "x" * fits})[0].status == 200
        refusal, _ = process.get(headers={"X-Large": "x" * too_large})
        assert refusal.status == 431
        process.wait_for(r"INFO    127\.0\.0\.1 - - HTTP/- 431 ")


# WebSocket


@probes("ws_max_size")
def test_message_over_the_limit_ends_the_connection(full: Server) -> None:
    with full.websocket() as ws:
        ws.send("x" * MAX_MESSAGE)
        assert ws.recv(TIMEOUT) == f"{MAX_MESSAGE} received"
        ws.send("x" * (MAX_MESSAGE + 1))
        with pytest.raises(ConnectionClosed):
            ws.recv(TIMEOUT)


@probes("ws_max_size")
def test_a_mebibyte_is_accepted_by_default_and_no_more(plain: Server) -> None:
    with plain.websocket() as ws:
        ws.send(b"x" * 2**20)
        assert ws.recv(TIMEOUT) == f"{2**20} received"
        ws.send(b"x" * (2**20 + 1))
        with pytest.raises(ConnectionClosed):
            ws.recv(TIMEOUT)


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
EMPTY_PING = 0x89  # FIN and opcode 9: RFC 6455, section 5.2


@probes("ws_ping_interval", "ws_ping_timeout")
def test_pings_and_what_becomes_of_who_does_not_answer(full: Server) -> None:
    with full.connect() as sock, sock.makefile("rb") as stream:
        send(sock, "/", UPGRADE)
        assert b" 101 " in stream.readline()
        while stream.readline().strip():
            pass
        start = monotonic()
        assert stream.read(1)[0] == EMPTY_PING
        with suppress(ConnectionResetError):
            while stream.read1(1000):
                pass
        assert monotonic() - start < WELL_BELOW_THE_DEFAULT


# TLS


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a certificate for the server and one for a client, a locked key."""
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("localhost", "client"):
        leaf = authority.issue_cert(name)
        leaf.private_key_and_cert_chain_pem.write_to_path(folder / f"{name}.both")
        leaf.private_key_pem.write_to_path(folder / f"{name}.key")
        leaf.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    key = load_pem_private_key((folder / "localhost.key").read_bytes(), None)
    locked = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open sesame")
    )
    (folder / "locked.key").write_bytes(locked)
    (folder / "password").write_text("open sesame\n")
    return folder


@pytest.fixture
def secure(server: str, pool: Pool, certificates: Path) -> Server:
    """TLS with whatever there is."""

    def secure(_server: str, _folder: Path, start: Start) -> Server:
        return start(
            *("--ssl-certfile", str(certificates / "localhost.pem")),
            *("--ssl-keyfile", str(certificates / "locked.key")),
            *("--ssl-keyfile-password-file", str(certificates / "password")),
            *("--ssl-ca-certs", str(certificates / "ca.pem")),
            *("--ssl-cert-reqs", "required"),
            *("--ssl-ciphers", "ECDHE+CHACHA20"),
        )

    return pool(server, secure)


def client_context(certificates: Path, *, identity: bool = True) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    if identity:
        context.load_cert_chain(certificates / "client.both")
    return context


def seen_with(process: Server, context: ssl.SSLContext) -> dict[str, Any]:
    with (
        process.connect() as sock,
        context.wrap_socket(sock, server_hostname="localhost") as encrypted,
    ):
        send(encrypted, "/")
        seen: dict[str, Any] = json.loads(answer(encrypted)[1])
        return seen


NO_CONNECTION = (ssl.SSLError, ConnectionResetError, BrokenPipeError)


@probes("ssl_certfile", "ssl_keyfile", "ssl_keyfile_password_file")
def test_tls_with_a_locked_key(secure: Server, certificates: Path) -> None:
    seen = seen_with(secure, client_context(certificates))
    assert (seen["uri"], seen["secure"]) == ("https://localhost/", True)
    assert secure.matches(r"listening on https://127\.0\.0\.1:\d+$")


@probes("ssl_certfile")
def test_no_plain_text_on_a_tls_port(secure: Server) -> None:
    with secure.connect() as sock, suppress(ConnectionResetError):
        send(sock, "/")
        assert not sock.recv(1000).startswith(b"HTTP/1.1 200")


@probes("http2")
def test_http2_where_it_can_be_had(
    server: str, project: Path, certificates: Path
) -> None:
    arguments = ("--server", server, "--http2")
    if server == "uvicorn":
        result = djasgi("serve", *arguments, cwd=project)
        assert result.returncode == 2
        assert result.stderr.splitlines() == [
            "Error: uvicorn cannot do --http2.",
            "hypercorn and daphne can:  djasgi serve --server hypercorn",
        ]
        return
    tls = ("--ssl-certfile", str(certificates / "localhost.both"))
    context = client_context(certificates)
    with Server(project, *arguments, *tls) as process:
        with http2.Client(process.connect(), context) as connected:
            stream = connected.get("/")
        seen = json.loads(stream.body)
        assert (stream.status, seen["uri"]) == (200, "https://localhost/")
        process.wait_for(r"GET / HTTP/2 200 ")
        assert process.stop() == 0


@probes("http2")
def test_http2_is_off_by_default(secure: Server, certificates: Path) -> None:
    context = client_context(certificates)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with context.wrap_socket(secure.connect(), server_hostname="localhost") as sock:
        assert sock.selected_alpn_protocol() == "http/1.1"


@probes("http2")
def test_http2_without_tls_is_refused(server: str, project: Path) -> None:
    if server == "uvicorn":
        return  # refused in any case, above
    result = djasgi("serve", "--server", server, "--http2", cwd=project)
    assert result.returncode == 2
    assert "Without --ssl-certfile there is no TLS for --http2." in result.stderr


@probes("ssl_ca_certs", "ssl_cert_reqs")
def test_client_without_a_certificate_is_refused(
    secure: Server, certificates: Path
) -> None:
    with pytest.raises(NO_CONNECTION):
        seen_with(secure, client_context(certificates, identity=False))


@probes("ssl_ciphers")
def test_other_ciphers_are_refused(secure: Server, certificates: Path) -> None:
    context = client_context(certificates)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+CHACHA20")
    assert seen_with(secure, context)["secure"]
    context.set_ciphers("ECDHE+AESGCM")
    with pytest.raises(NO_CONNECTION):
        seen_with(secure, context)


@probes("ssl_min_version", "ssl_cert_reqs")
def test_older_tls_is_refused_and_an_optional_certificate_is_optional(
    server: str, project: Path, certificates: Path
) -> None:
    with Server(
        project,
        *("--server", server, "--ssl-min-version", "1.3"),
        *("--ssl-certfile", str(certificates / "localhost.both")),
        *("--ssl-ca-certs", str(certificates / "ca.pem")),
        *("--ssl-cert-reqs", "optional"),
    ) as process:
        context = client_context(certificates, identity=False)
        assert seen_with(process, context)["secure"]
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(NO_CONNECTION):
            seen_with(process, context)
        assert process.stop() == 0


# Logging


@probes("access_log")
def test_requests_are_logged_without_their_query(plain: Server) -> None:
    plain.get("/variable/LOGGED/?token=hidden")
    plain.wait_for(
        r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    127\.0\.0\.1 GET "
        r"/variable/LOGGED/ HTTP/1\.1 200 7 \d+\.\dms [0-9a-f]{32}$"
    )
    assert "hidden" not in plain.log


@probes("access_log")
def test_access_log_can_be_off(platform: Server) -> None:
    with platform.connect() as sock:
        for path in ("/variable/UNLOGGED/", "/say/later/"):
            send(sock, path)
            assert answer(sock)[0].status == 200
    platform.wait_for("said: later")  # by the worker that was asked before
    assert not platform.matches("GET|UNLOGGED")


@probes("log_level", "access_log")
def test_log_level_does_not_silence_the_access_log(quiet: Server) -> None:
    with unix(socket_of(quiet)) as sock:
        send(sock, "/variable/ERRORS_ONLY/")
        answer(sock)
    quiet.wait_for(r"INFO    - GET /variable/ERRORS_ONLY/ ")
    assert all(" HTTP/1.1 " in line for line in quiet.lines)


ALWAYS = {"time", "level", "logger", "message", "pid", "worker"}
OF_REQUESTS = ALWAYS | {
    *("client", "method", "path", "status", "bytes", "duration"),
    *("http_version", "request_id", "scheme", "event"),
}


@probes("log_format")
def test_json_has_the_same_fields_on_every_server(full: Server) -> None:
    full.get("/variable/FROM_FILE/?query", FORWARDED)
    full.wait_for("/shop/variable/FROM_FILE/")
    with full.websocket("/ws/json") as ws:
        ws.send("x")
        ws.recv(TIMEOUT)
    full.wait_for('/ws/json.*"event":"close"')

    # print() in the project is not ours to format.
    records = [json.loads(line) for line in full.lines if "lifespan:" not in line]

    access = [record for record in records if record["logger"] == "djasgi.access"]
    others = [record for record in records if record["logger"] != "djasgi.access"]
    assert {frozenset(record) for record in access} == {frozenset(OF_REQUESTS)}
    assert {frozenset(record) for record in others} == {frozenset(ALWAYS)}
    assert {record["worker"] for record in access} == {1}
    assert [*{record["pid"] for record in access}] == full.workers()
    assert {record["worker"] for record in others} == {None}
    one = next(r for r in access if r["path"] == "/shop/variable/FROM_FILE/")
    assert (one["method"], one["status"], one["bytes"]) == ("GET", 200, 11)
    assert (one["http_version"], one["scheme"]) == ("1.1", "http")
    assert one["client"] == "127.0.0.1"
    events = [r for r in access if r["path"] == "/shop/ws/json"]
    assert [r["event"] for r in events] == ["open", "close"]
    assert [r["method"] for r in events] == ["WS", "WS"]


# Stopping


@probes("graceful_timeout")
def test_what_does_not_end_is_cut_at_the_graceful_timeout(
    server: str, project: Path
) -> None:
    with (
        Gate() as gate,
        Server(
            project,
            *("--server", server, "--graceful-timeout", str(SHORT)),
            env=gate.variables,
        ) as process,
        process.connect() as sock,
    ):
        send(sock, "/hold/")
        gate.arrived()
        start = monotonic()
        assert process.stop() == 0
        assert SHORT * 0.9 < monotonic() - start < WELL_BELOW_THE_DEFAULT
        with suppress(ConnectionResetError):
            assert b" 200 " not in sock.recv(1000)


@probes("linger")
def test_idle_connection_lingers_and_may_be_used_once_more(
    server: str, project: Path
) -> None:
    with (
        Server(
            project,
            *("--server", server, "--linger", str(SHORT)),
        ) as process,
        process.connect() as used,
        process.connect() as unused,
    ):
        start = monotonic()
        process.ready().signal(SIGTERM)
        while True:
            send(used, "/")
            answered, _ = answer(used)
            assert answered.status == 200
            if answered.getheader("connection") == "close":
                break
        assert unused.recv(1) == b""
        assert SHORT * 0.9 < monotonic() - start < WELL_BELOW_THE_DEFAULT
        assert process.wait() == 0


@probes("stream_grace")
def test_stream_is_told_to_end_after_the_stream_grace(
    server: str, project: Path
) -> None:
    """Django then cancels the view: the response stays unfinished, and is not logged."""
    with (
        Gate() as gate,
        Server(
            project,
            *("--server", server, "--stream-grace", str(SHORT)),
            env=gate.variables,
        ) as process,
        process.connect() as sock,
    ):
        send(sock, "/stream/")
        gate.arrived()
        start = monotonic()
        assert process.stop() == 0
        assert SHORT * 0.9 < monotonic() - start < WELL_BELOW_THE_DEFAULT / 2
        with pytest.raises(IncompleteRead):
            answer(sock)
        assert "Traceback" not in process.log
        assert "cancelled" not in process.log
