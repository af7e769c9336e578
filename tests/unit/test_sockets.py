from __future__ import annotations

import errno
import gc
import os
import re
import resource
import secrets
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from djasgi.errors import ExitCode, ListenError
from djasgi.kinds import Bind
from djasgi.supervisor import occupants, sockets, unix_sockets
from djasgi.supervisor.sockets import Listeners, open_listeners
from djasgi.supervisor.unix_sockets import MAX_UNIX_PATH

Open = Callable[..., Listeners]


@pytest.fixture
def opened() -> Iterator[Open]:
    """`open_listeners` whose sockets are closed at the end."""
    with ExitStack() as stack:

        def open_(*binds: Bind, uds_mode: int = 0o660, **kwargs: Any) -> Listeners:
            listeners = open_listeners(binds, uds_mode=uds_mode, backlog=16, **kwargs)
            return stack.enter_context(listeners)

        yield open_


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with a path short enough for unix sockets."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


def tcp(host: str = "127.0.0.1", port: int = 0) -> Bind:
    return Bind("tcp", host=host, port=port)


def unix(path: Path | str) -> Bind:
    return Bind("unix", path=str(path))


def port_of(sock: socket.socket) -> int:
    port = sock.getsockname()[1]
    assert isinstance(port, int)
    return port


def listening(opened: Open) -> int:
    """The port of a listening socket of this process."""
    listeners = opened(tcp())
    listeners.listen()
    return port_of(listeners.sockets[0])


def refusal(opened: Open, *binds: Bind) -> ListenError:
    with pytest.raises(ListenError) as caught:
        opened(*binds)
    assert caught.value.exit_code == ExitCode.LISTEN
    assert caught.value.hint
    return caught.value


def me() -> str:
    comm = Path("/proc/self/comm")
    return f" by {comm.read_text().strip()} (pid {os.getpid()})"


def test_a_bound_socket_refuses_clients_until_it_listens(opened: Open) -> None:
    listeners = opened(tcp())
    address = listeners.sockets[0].getsockname()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)

    listeners.listen()

    socket.create_connection(address).close()
    listeners.listen()


def test_sockets_are_non_blocking_reusable_and_not_passed_to_programs(
    opened: Open, directory: Path
) -> None:
    listeners = opened(tcp(), tcp("::1"), unix(directory / "s"))

    for sock in listeners.sockets:
        assert not sock.getblocking()
        assert not sock.get_inheritable()
    assert listeners.sockets[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)


def test_closing_gives_the_port_back(opened: Open) -> None:
    with opened(tcp()) as listeners:
        port = port_of(listeners.sockets[0])
        listeners.listen()
    assert listeners.sockets == ()

    again = opened(tcp(port=port))

    again.listen()


def test_addresses_are_what_was_asked_for_with_the_real_port(
    opened: Open, directory: Path
) -> None:
    binds = [tcp(), tcp("::1"), unix(directory / "s")]
    listeners = opened(*binds, scheme="https")
    first, second = (port_of(sock) for sock in listeners.sockets[:2])

    assert listeners.addresses == (
        f"https://127.0.0.1:{first}",
        f"https://[::1]:{second}",
        f"unix:{directory}/s",
    )


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Make every name resolve to `addresses`."""
    real = socket.getaddrinfo

    def resolve(host: str, port: int, **kwargs: Any) -> list[Any]:
        return [entry for a in addresses for entry in real(a, port, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


def test_a_name_is_bound_to_its_first_address_of_each_family_on_one_port(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, "127.0.0.1", "::1", "127.0.0.2")

    listeners = opened(tcp("shop.test"))

    hosts = [sock.getsockname()[0] for sock in listeners.sockets]
    assert hosts == ["127.0.0.1", "::1"]
    assert len({port_of(sock) for sock in listeners.sockets}) == 1
    port = port_of(listeners.sockets[0])
    assert listeners.addresses == (f"http://shop.test:{port}",)


def test_a_name_with_one_address_that_is_not_ours_is_bound_to_the_other(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, "192.0.2.1", "::1")

    (sock,) = opened(tcp("shop.test")).sockets

    assert sock.getsockname()[0] == "::1"


def test_a_name_with_no_address_that_is_ours_is_refused(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, "192.0.2.1")

    error = refusal(opened, tcp("shop.test"))

    assert error.message == "shop.test is not an address of this machine."


def test_port_0_is_tried_again_when_it_is_free_for_one_family_only(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, "127.0.0.1", "::1")
    real = sockets._bind_one
    attempts: list[Any] = []

    def bind(family: socket.AddressFamily, address: Any) -> Any:
        attempts.append(address)
        if len(attempts) == 2:
            raise OSError(errno.EADDRINUSE, "taken")
        return real(family, address)

    monkeypatch.setattr(sockets, "_bind_one", bind)

    assert len(opened(tcp("shop.test")).sockets) == 2
    assert [address[0] for address in attempts] == ["127.0.0.1", "::1"] * 2


def test_the_ipv6_wildcard_takes_ipv4_as_well_and_shows_its_clients_as_such(
    opened: Open,
) -> None:
    listeners = opened(tcp("::"))
    listeners.listen()
    port = port_of(listeners.sockets[0])

    with (
        socket.create_connection(("127.0.0.1", port)),
        socket.create_connection(("::1", port)),
    ):
        peers = {accepted(sock) for sock in listeners.sockets}

    assert peers == {"127.0.0.1", "::1"}
    assert listeners.addresses == (f"http://[::]:{port}",)


def accepted(listener: socket.socket) -> str:
    listener.setblocking(True)
    connection, address = listener.accept()
    connection.close()
    return str(address[0])


def test_the_ipv6_wildcard_leaves_ipv4_to_a_bind_of_its_own(opened: Open) -> None:
    port = listening_port_free_for_both()

    listeners = opened(tcp("0.0.0.0", port), tcp("::", port))

    listeners.listen()
    assert [sock.family for sock in listeners.sockets] == [
        socket.AF_INET,
        socket.AF_INET6,
    ]


def listening_port_free_for_both() -> int:
    with socket.socket(socket.AF_INET6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", 0))
        return port_of(sock)


def test_another_ipv6_address_does_not_take_ipv4(opened: Open) -> None:
    (sock,) = opened(tcp("::1")).sockets

    assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_without_ipv6_the_wildcard_is_that_of_ipv4(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sockets._bind_one

    def bind(family: socket.AddressFamily, address: Any) -> Any:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported")
        return real(family, address)

    monkeypatch.setattr(sockets, "_bind_one", bind)

    listeners = opened(tcp("::"))

    assert listeners.sockets[0].getsockname()[0] == "0.0.0.0"
    assert listeners.addresses[0].startswith("http://0.0.0.0:")


def test_what_is_asked_for_twice_is_bound_once(
    opened: Open, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = listening_port_free_for_both()
    path = unix(directory / "s")
    resolving(monkeypatch, "127.0.0.1")

    listeners = opened(tcp(port=port), tcp("shop.test", port), path, path)

    assert len(listeners.sockets) == 2
    listeners.listen()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_port_in_use_names_who_has_it(opened: Open) -> None:
    port = listening(opened)

    for host in ("127.0.0.1", "0.0.0.0", "::"):
        error = refusal(opened, tcp(host, port))
        assert error.message == f"{tcp(host, port)} is in use{me()}."


def test_a_port_in_use_by_somebody_unknown_is_told_without_the_name(
    opened: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    port = listening(opened)
    (tmp_path / "7").mkdir()  # not ours: no fd to look into
    (tmp_path / "net").mkdir()
    line = f"0: 0100007F:{port:04X} 00000000:0000 0A 0:0 0:0 0 0 0 4242 1\n"
    (tmp_path / "net" / "tcp").write_text(f"header\n{line}")
    monkeypatch.setattr(occupants, "PROC", tmp_path)

    error = refusal(opened, tcp(port=port))

    assert error.message == f"127.0.0.1:{port} is in use."


def test_control_characters_in_the_name_of_the_other_process_are_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "comm").write_text("a\x1b[31m\x7fb\n")
    monkeypatch.setattr(occupants, "PROC", tmp_path)

    assert occupants._named(7) == " by a?[31m?b (pid 7)"
    assert occupants._named(8) == " by pid 8"


def test_who_loses_the_race_for_a_port_is_told_when_it_listens(opened: Open) -> None:
    port = listening_port_free_for_both()
    first, second = opened(tcp(port=port)), opened(tcp("localhost", port))
    first.listen()

    with pytest.raises(ListenError, match=rf"^127\.0\.0\.1:{port} is in use"):
        second.listen()


def test_an_address_of_another_machine_is_refused(opened: Open) -> None:
    error = refusal(opened, tcp("192.0.2.1"))

    assert error.message == "192.0.2.1 is not an address of this machine."


def test_a_host_that_does_not_resolve_is_refused(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    error = refusal(opened, tcp("nowhere"))

    assert error.message == (
        "The host nowhere does not resolve: Name or service not known."
    )


def test_a_host_that_is_no_host_name_is_refused(opened: Open) -> None:
    error = refusal(opened, tcp("x" * 70 + ".test"))

    assert error.message.endswith("does not resolve: not a host name.")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.EACCES, "No permission to listen on 127.0.0.1:80."),
        (errno.EPERM, "No permission to listen on 127.0.0.1:80."),
        (errno.EINVAL, "127.0.0.1:80 cannot be listened on: Invalid argument."),
    ],
)
def test_what_the_system_refuses_is_said_in_words(
    opened: Open, monkeypatch: pytest.MonkeyPatch, code: int, message: str
) -> None:
    def bind(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(sockets, "_bind_one", bind)

    assert refusal(opened, tcp(port=80)).message == message


@pytest.mark.parametrize("bind", [tcp(), tcp("::1"), unix("{}/s")])
def test_too_many_open_files_names_the_limit(
    opened: Open, directory: Path, bind: Bind
) -> None:
    if bind.family == "unix":
        bind = unix(bind.path.format(directory))
    socket.getaddrinfo("localhost", 0)  # what it imports needs descriptors
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, old[1]))
    try:
        error = refusal(opened, bind)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, old)

    assert error.message == (
        f"Too many open files: the limit is {lowest_free} (ulimit -n)."
    )


def descriptors() -> int:
    return len([*Path("/dev/fd").iterdir()])


def test_after_a_failure_nothing_is_left_open(opened: Open, directory: Path) -> None:
    port = listening(opened)
    before = descriptors()

    refusal(opened, tcp(), unix(directory / "s"), tcp(port=port))

    assert descriptors() == before
    assert not any(directory.iterdir())


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o777])
def test_a_unix_socket_has_the_permissions_whatever_the_umask(
    opened: Open, directory: Path, mode: int
) -> None:
    old = os.umask(0o077)
    try:
        opened(unix(directory / "s"), uds_mode=mode)
    finally:
        os.umask(old)

    status = (directory / "s").stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == mode
    assert [entry.name for entry in directory.iterdir()] == ["s"]


def connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_unix_socket_serves_and_is_removed_at_the_end(
    opened: Open, directory: Path
) -> None:
    path = directory / "s"
    listeners = opened(unix(path))
    listeners.listen()
    connect(path)

    listeners.close()

    assert not path.exists()
    listeners.close()


def test_a_dead_unix_socket_is_replaced(opened: Open, directory: Path) -> None:
    path = directory / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    listeners = opened(unix(path))

    listeners.listen()
    connect(path)


def test_a_live_unix_socket_is_refused_and_names_who_has_it(
    opened: Open, directory: Path
) -> None:
    path = directory / "s"
    opened(unix(path)).listen()

    error = refusal(opened, unix(path))

    owner = me() if sys.platform == "linux" else ""
    assert error.message == f"{path} is in use{owner}."
    connect(path)


def test_without_peer_credentials_a_live_unix_socket_is_refused_all_the_same(
    opened: Open, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "SO_PEERCRED", raising=False)
    path = directory / "s"
    opened(unix(path)).listen()

    assert refusal(opened, unix(path)).message == f"{path} is in use."


def test_a_live_unix_socket_whose_queue_is_full_is_refused(
    opened: Open, directory: Path
) -> None:
    path = directory / "s"
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(str(path))
        server.listen(0)
        code = 0
        while code == 0:
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            code = client.connect_ex(str(path))

        assert code == errno.EAGAIN
        assert refusal(opened, unix(path)).message == f"{path} is in use."


def test_a_unix_socket_of_another_type_is_refused(
    opened: Open, directory: Path
) -> None:
    path = directory / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))

        assert refusal(opened, unix(path)).message == f"{path} is in use."


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_a_file_in_the_way_is_refused_and_kept(
    opened: Open, directory: Path, make: Callable[[Path], None]
) -> None:
    path = directory / "s"
    make(path)

    error = refusal(opened, unix(path))

    assert error.message == f"{path} exists and is not a socket."
    assert path.exists()


def test_a_link_in_the_way_is_refused_and_kept(opened: Open, directory: Path) -> None:
    path = directory / "s"
    path.symlink_to(directory / "elsewhere")

    refusal(opened, unix(path))

    assert path.is_symlink()


def test_a_directory_that_does_not_exist_is_named(
    opened: Open, directory: Path
) -> None:
    error = refusal(opened, unix(directory / "run" / "s"))

    assert error.message == (
        f"The directory of the socket {directory}/run/s does not exist."
    )
    assert error.hint == f"Make it first: mkdir -p {directory}/run"


def test_a_file_instead_of_the_directory_is_told(opened: Open, directory: Path) -> None:
    (directory / "run").touch()

    error = refusal(opened, unix(directory / "run" / "s"))

    assert error.message == (
        f"{directory}/run/s cannot be listened on: Not a directory."
    )


def test_a_directory_without_write_permission_is_told(
    opened: Open, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bind(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(unix_sockets, "_bind_temporary", bind)

    error = refusal(opened, unix(directory / "s"))

    assert error.message == f"No permission to make the socket {directory}/s."


def test_a_unix_path_may_be_as_long_as_the_system_allows(
    opened: Open, directory: Path
) -> None:
    left = MAX_UNIX_PATH - len(str(directory)) - 1
    path = directory / ("s" * left)
    opened(unix(path)).listen()
    connect(path)

    error = refusal(opened, unix(f"{path}s"))

    assert f"too long: {MAX_UNIX_PATH + 1} bytes" in error.message


def test_a_temporary_name_that_exists_is_not_taken(
    opened: Open, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = iter(["aaaaaaaa", "bbbbbbbb"])
    monkeypatch.setattr(secrets, "token_hex", lambda size: next(names))
    other = directory / ".aaaaaa"
    other.touch()

    opened(unix(directory / "djasgi.")).listen()

    connect(directory / "djasgi.")
    assert other.exists()


def test_a_socket_that_cannot_take_its_name_leaves_nothing(
    opened: Open, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", rename)

    error = refusal(opened, unix(directory / "s"))

    assert "No space left on device" in error.message
    assert not any(directory.iterdir())


def test_a_unix_path_that_is_not_ours_any_more_is_kept(
    opened: Open, directory: Path
) -> None:
    path = directory / "s"
    listeners = opened(unix(path))
    path.unlink()
    opened(unix(path))

    listeners.close()

    assert path.exists()


def test_a_unix_path_that_is_gone_is_no_error(opened: Open, directory: Path) -> None:
    listeners = opened(unix(directory / "s"))
    (directory / "s").unlink()

    listeners.close()


def test_the_end_of_a_child_keeps_the_unix_path(opened: Open, directory: Path) -> None:
    path = directory / "s"
    listeners = opened(unix(path))
    pid = os.fork()
    if pid == 0:
        listeners.close()
        os._exit(0)

    assert os.waitpid(pid, 0)[1] == 0
    assert path.exists()


@pytest.mark.parametrize("listen", [True, False])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_an_inherited_socket_is_taken_over_whatever_its_family(
    opened: Open, directory: Path, family: socket.AddressFamily, listen: bool
) -> None:
    address: dict[int, Any] = {
        socket.AF_INET: ("127.0.0.1", 0),
        socket.AF_INET6: ("::1", 0),
        socket.AF_UNIX: str(directory / "s"),
    }
    inherited = socket.socket(family)
    inherited.bind(address[family])
    inherited.set_inheritable(True)
    if listen:
        inherited.listen()

    listeners = opened(Bind("fd", fd=inherited.detach()))
    listeners.listen()

    (sock,) = listeners.sockets
    assert sock.family == family
    assert not sock.get_inheritable()
    with socket.socket(family) as client:
        client.connect(sock.getsockname())
    name = sock.getsockname()
    shown = {
        socket.AF_INET: f"http://127.0.0.1:{name[1]}",
        socket.AF_INET6: f"http://[::1]:{name[1]}",
        socket.AF_UNIX: f"unix:{directory}/s",
    }
    assert listeners.addresses == (shown[family],)


def test_an_inherited_unix_path_is_not_ours_to_remove(
    opened: Open, directory: Path
) -> None:
    path = directory / "s"
    inherited = socket.socket(socket.AF_UNIX)
    inherited.bind(str(path))

    opened(Bind("fd", fd=inherited.detach())).close()

    assert path.exists()


def test_a_descriptor_that_is_not_open_is_refused(opened: Open) -> None:
    error = refusal(opened, Bind("fd", fd=999_999))

    assert error.message == "File descriptor 999999 is not open."


def test_a_descriptor_that_is_a_file_is_refused(opened: Open, tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        error = refusal(opened, Bind("fd", fd=file.fileno()))

    assert error.message.endswith("is not a socket.")


def test_a_descriptor_that_is_a_datagram_socket_is_refused_and_left_open(
    opened: Open,
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        error = refusal(opened, Bind("fd", fd=other.fileno()))
        os.fstat(other.fileno())

    assert error.message.endswith("is not a TCP or unix stream socket.")


def test_a_descriptor_that_is_a_connection_is_refused(opened: Open) -> None:
    one, other = socket.socketpair()
    with one, other:
        error = refusal(opened, Bind("fd", fd=one.fileno()))

    assert error.message.endswith("is a connection, not a listening socket.")


def test_a_failure_to_listen_on_a_unix_socket_names_the_path(
    opened: Open, directory: Path
) -> None:
    class Broken(socket.socket):
        def listen(self, backlog: int = 0, /) -> None:
            raise OSError(errno.ENOBUFS, "No buffer space available")

    listeners = opened(unix(directory / "s"))
    bound = listeners._bound[0]
    broken = Broken(fileno=os.dup(bound.socket.fileno()))
    listeners._bound.append(sockets.Bound(broken, bound.asked, bound.bind))

    with pytest.raises(ListenError, match=re.escape(f"unix:{directory}/s cannot be")):
        listeners.listen()


def test_closed_standard_descriptors_are_not_given_to_sockets() -> None:
    code = (
        "from djasgi.kinds import Bind\n"
        "from djasgi.supervisor.sockets import open_listeners\n"
        "import os\n"
        "found = open_listeners([Bind('tcp', host='127.0.0.1')],\n"
        "                       uds_mode=0o600, backlog=1)\n"
        "numbers = [sock.fileno() for sock in found.sockets]\n"
        "ok = min(numbers) > 2 and all(os.get_inheritable(n) for n in range(3))\n"
        "os._exit(0 if ok else 1)\n"
    )
    command = f'exec "{sys.executable}" -c "$0" <&- >&- 2>&-'

    done = subprocess.run(["/bin/sh", "-c", command, code], check=False)

    assert done.returncode == 0


def test_sockets_of_the_run_before_outlive_a_plan_that_is_refused(
    opened: Open,
) -> None:
    """Also when nothing refers to what had taken them over."""
    with socket.create_server(("127.0.0.1", 0)) as rival:
        before = opened(tcp())
        port = port_of(before.sockets[0])
        state = before.hand_over()
        before.let_go()
        wanted = (tcp("127.0.0.2"), tcp(port=port_of(rival)))

        with pytest.raises(ListenError):
            opened(*wanted, inherited=state)
        gc.collect()

        with Listeners.revived(state) as revived:
            assert [port_of(sock) for sock in revived.sockets] == [port]
            revived.listen()
            socket.create_connection(("127.0.0.1", port), 10).close()
