"""Every server says of every option how it is met, and what it says is true."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from djasgi import servers
from djasgi.errors import UsageError
from djasgi.kinds import Bind
from djasgi.options import OPTIONS, SERVERS, Options
from djasgi.servers.base import Adapted, Native, Refused, Supplied, converted

ROOT = Path(__file__).parent.parent.parent

EVERY = [(server, name) for server in SERVERS for name in OPTIONS]

NATIVE = [
    (server, name)
    for server, name in EVERY
    if isinstance(servers.support(server).get(name), Native)
]

UNUSUAL: dict[str, Any] = {
    "backlog": 77,
    "keep_alive": 7.5,
    "server_header": True,
    "date_header": False,
    "ws_max_size": 77_777,
    "ws_ping_interval": 7.5,
    "ws_ping_timeout": 8.5,
}


@pytest.mark.parametrize(("server", "name"), EVERY)
def test_every_option_is_met_or_refused(server: str, name: str) -> None:
    how = servers.support(server)[name]
    assert isinstance(how, Native | Supplied | Adapted | Refused)
    match how:
        case Native(attribute=words) | Supplied(by=words):
            assert words
        case Adapted(how=words) | Refused(why=words):
            assert words


@pytest.mark.parametrize("server", SERVERS)
def test_no_word_about_what_is_no_option(server: str) -> None:
    assert set(servers.support(server)) == set(OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
def test_what_one_server_refuses_another_can(name: str) -> None:
    refusing = [s for s in SERVERS if isinstance(servers.support(s)[name], Refused)]
    assert len(refusing) < len(SERVERS)


@pytest.mark.parametrize(("server", "name"), NATIVE)
def test_native_option_reaches_the_attribute_that_it_names(
    server: str, name: str
) -> None:
    how = servers.support(server)[name]
    assert isinstance(how, Native)
    module: Any = servers.load(server)
    unusual: Any = {name: UNUSUAL[name]}
    options = Options(**unusual)

    assert module.configuration(options)[how.attribute] == UNUSUAL[name]
    assert how.attribute in configuration_of(server)


def configuration_of(server: str) -> set[str]:
    """The names in the server's own configuration."""
    if server == "uvicorn":
        import uvicorn

        return set(inspect.signature(uvicorn.Config).parameters)
    from hypercorn.config import Config

    return set(dir(Config))


@pytest.mark.parametrize("name", ["ws_ping_interval", "ws_ping_timeout"])
def test_zero_switches_pings_off(name: str) -> None:
    for server, native in NATIVE:
        if native == name:
            how: Any = servers.support(server)[name]
            module: Any = servers.load(server)
            zero: Any = {name: 0.0}
            options = Options(**zero)
            assert module.configuration(options)[how.attribute] is None


@pytest.mark.parametrize("server", SERVERS)
def test_flags_are_those_of_the_native_command(server: str) -> None:
    helped = subprocess.run(
        [sys.executable, "-m", server, "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "200", "PATH": ""},
    )
    known = set(re.findall(r"--?[a-z0-9-]+", helped.stdout))
    address = servers.load(server).native_address(
        [
            Bind("tcp", host="127.0.0.1", port=1),
            Bind("unix", path="/run/x"),
            Bind("fd", fd=3),
        ]
    )
    flags = {word for word in address if word.startswith("-")}
    for how in servers.support(server).values():
        if not isinstance(how, Refused):
            flags |= set(filter(None, how.flag.split("/")))
    assert flags <= known


def test_arguments_of_the_native_command() -> None:
    def words(server: str, name: str, value: object) -> list[str]:
        how = servers.support(server)[name]
        assert not isinstance(how, Refused)
        return how.arguments(value, OPTIONS[name].kind)

    assert words("uvicorn", "keep_alive", 7.0) == ["--timeout-keep-alive", "7"]
    assert words("uvicorn", "server_header", False) == ["--no-server-header"]
    assert words("uvicorn", "header", (("A", "b"), ("C", "d"))) == [
        *("--header", "A: b"),
        *("--header", "C: d"),
    ]
    assert words("uvicorn", "ssl_keyfile", None) == []
    assert words("daphne", "server_header", True) == []
    assert words("daphne", "server_header", False) == ["--no-server-name"]
    assert words("hypercorn", "header_timeout", 5.0) == []
    assert words("hypercorn", "loop", "uvloop") == ["--worker-class", "uvloop"]
    assert words("hypercorn", "loop", "auto") == []


@pytest.mark.parametrize("server", SERVERS)
def test_tables_do_not_import_the_servers(server: str) -> None:
    """`explain` and `--help` are to be quick; and importing daphne has consequences."""
    code = (
        "import sys\n"
        "from djasgi import servers\n"
        f"module = servers.load({server!r})\n"
        "assert module.SUPPORT and module.LACKS\n"
        "heavy = {'uvicorn', 'hypercorn', 'daphne', 'twisted', 'django', 'asyncio', 'ssl'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "module.check_native([])\n"
        "print('twisted' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    shown, twisted = done.stdout.splitlines()
    assert shown == "[]"
    assert twisted == "False"


def test_unknown_server() -> None:
    with pytest.raises(KeyError):
        servers.load("gunicorn")


# -o name=value


@pytest.mark.parametrize(
    ("server", "name", "text", "value"),
    [
        ("uvicorn", "ws_per_message_deflate", "off", False),
        ("uvicorn", "reset_contextvars", "on", True),
        ("hypercorn", "h2_max_concurrent_streams", "50", 50),
        ("hypercorn", "read_timeout", "30", 30),
        ("hypercorn", "read_timeout", "None", None),
        (
            "hypercorn",
            "server_names",
            "a.example, b.example",
            ["a.example", "b.example"],
        ),
        ("hypercorn", "h11_pass_raw_headers", "true", True),
        ("daphne", "http_timeout", "2.5", 2.5),
        ("daphne", "http_timeout", "none", None),
        ("daphne", "request_buffer_size", "16384", 16_384),
    ],
)
def test_native_setting_is_converted(
    server: str, name: str, text: str, value: object
) -> None:
    checked = servers.load(server).check_native([(name, text)])
    assert checked == {name: value}
    assert type(checked[name]) is type(value)


@pytest.mark.parametrize(
    ("server", "name", "option"),
    [
        ("uvicorn", "workers", "--workers"),
        ("uvicorn", "timeout_keep_alive", "--keep-alive"),
        ("uvicorn", "ssl_certfile", "--ssl-certfile"),
        ("hypercorn", "bind", "--bind"),
        ("hypercorn", "keyfile_password", "--ssl-keyfile-password-file"),
        ("daphne", "ping_interval", "--ws-ping-interval"),
        ("daphne", "endpoints", "--bind"),
    ],
)
def test_native_setting_that_djasgi_decides_names_the_option(
    server: str, name: str, option: str
) -> None:
    with pytest.raises(UsageError, match=f"{name} belongs to djasgi") as caught:
        servers.load(server).check_native([(name, "1")])
    assert caught.value.hint == f"Use {option}."


@pytest.mark.parametrize("server", SERVERS)
def test_options_named_for_native_settings_exist(server: str) -> None:
    module: Any = servers.load(server)
    flags = {spec.flag for spec in OPTIONS.values()}
    for hint in module._OWNED.values():
        assert not hint or hint.split(",")[0] in flags


@pytest.mark.parametrize("server", SERVERS)
def test_settings_owned_by_djasgi_are_the_servers_own(server: str) -> None:
    """A name that the server has given up is to be removed from our list too."""
    module: Any = servers.load(server)
    if server == "daphne":
        known = set(module._known())
    else:
        known = configuration_of(server)
        known |= {"application_path"} if server == "hypercorn" else set()
    assert set(module._OWNED) <= known


@pytest.mark.parametrize(
    ("server", "wrong", "right"),
    [
        ("uvicorn", "reset_contextvar", "reset_contextvars"),
        ("hypercorn", "max_app_queue_sise", "max_app_queue_size"),
        ("daphne", "http_timeouts", "http_timeout"),
    ],
)
def test_unknown_native_setting_suggests_the_nearest(
    server: str, wrong: str, right: str
) -> None:
    with pytest.raises(UsageError, match=f"{server} has no such setting") as caught:
        servers.load(server).check_native([(wrong, "1")])
    assert caught.value.hint == f"Did you mean {right}?"


@pytest.mark.parametrize("server", SERVERS)
def test_native_setting_that_resembles_nothing(server: str) -> None:
    with pytest.raises(UsageError, match="no such setting") as caught:
        servers.load(server).check_native([("zzz", "1")])
    assert server in caught.value.hint


@pytest.mark.parametrize(
    ("annotation", "text", "message"),
    [
        ("int", "many", "expected a whole number"),
        ("int | None", "-1", "expected a whole number"),
        ("bool", "perhaps", "expected true or false"),
        ("float", "soon", "expected seconds"),
        ("Callable[..., None]", "f", "cannot be written as text"),
    ],
)
def test_native_value_of_the_wrong_type(
    annotation: str, text: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        converted("name", text, annotation)
    assert caught.value.message.startswith("-o name")


def test_every_native_setting_that_is_left_can_be_written() -> None:
    """What is neither ours nor text would be accepted by nobody."""
    for server in SERVERS:
        module: Any = servers.load(server)
        for name in configuration_left(server):
            assert any(accepted(module, name, text) for text in ("on", "1", "none")), (
                f"{server}: {name}"
            )


def accepted(module: Any, name: str, text: str) -> bool:
    try:
        module.check_native([(name, text)])
    except UsageError:
        return False
    return True


def configuration_left(server: str) -> set[str]:
    module: Any = servers.load(server)
    if server == "daphne":
        return set(module._known()) - set(module._OWNED)
    if server == "uvicorn":
        return configuration_of(server) - set(module._OWNED)
    from hypercorn.config import Config

    return {
        name
        for name, value in vars(Config).items()
        if not name.startswith("_") and not callable(value)
    } - {*module._OWNED, "from_mapping", "from_pyfile", "from_toml", "from_object"}
