"""Shell text as commands, and which of them starts a server for Django."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

ASGI_SERVERS = ("uvicorn", "hypercorn", "daphne", "granian")
SERVERS = (*ASGI_SERVERS, "gunicorn", "runserver", "djasgi")

_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_SEPARATORS = {"&&", "||", ";", "|", "&", "(", ")", ";;", "|&"}
_REDIRECTION = re.compile(r"""(?:&>>?|(?<![^\s])\d?(?:>>?|<<?)&?)\s*[^\s;&|"']+""")
_RUNNERS = {"poetry", "pipenv", "pdm", "hatch", "rye", "uv", "micromamba", "conda"}
_PREFIXES = {
    *("exec", "nohup", "nice", "time", "command", "then", "do", "else", "sudo"),
    *("tini", "dumb-init", "catatonit", "chpst", "setpriv", "tini-static"),
    *("opentelemetry-instrument", "ddtrace-run", "sentry-cli", "doppler", "chamber"),
}
_WITH_USER = {"gosu", "su-exec", "setuidgid"}

# Options without a value: what follows them is not theirs.
_FLAGS = {
    "uvicorn": {
        *("--reload", "--no-access-log", "--access-log", "--proxy-headers"),
        *("--no-proxy-headers", "--use-colors", "--no-use-colors", "--factory"),
        *("--server-header", "--no-server-header", "--date-header"),
        *("--no-date-header", "--version", "--reset-contextvars"),
    },
    "hypercorn": {"--reload", "--debug", "--h2c"},
    "daphne": {"--no-server-name", "--proxy-headers", "-e"} - {"-e"},
    "granian": {
        *("--reload", "--access-log", "--no-access-log", "--respawn-failed-workers"),
        *("--no-ws", "--ws", "--log", "--no-log", "--factory", "--no-factory"),
    },
    "gunicorn": {
        *("--reload", "--preload", "--daemon", "-D", "-R", "--capture-output"),
        *("--enable-stdio-inheritance", "--no-sendfile", "--reuse-port", "--spew"),
        *("--check-config", "--print-config", "--proxy-protocol"),
    },
    "runserver": {
        *("--noreload", "--nothreading", "--insecure", "--nostatic", "--noasgi"),
        *("-6", "--ipv6", "--no-color", "--force-color", "--skip-checks"),
    },
    "djasgi": {
        *("--factory", "--no-access-log", "--access-log", "--proxy-headers"),
        *("--no-proxy-headers", "--server-header", "--no-server-header"),
        *("--date-header", "--no-date-header", "--dry-run"),
    },
}


@dataclass(frozen=True, slots=True)
class Command:
    """One simple command of a shell text."""

    words: tuple[str, ...]
    executed: bool  # with `exec`: it takes the place of the shell
    alone: bool  # the only command of the text


@dataclass(frozen=True, slots=True)
class Server:
    """A command that starts a server."""

    name: str  # one of SERVERS
    arguments: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)
    executed: bool = False

    def has(self, *flags: str) -> bool:
        return any(
            word in flags or word.partition("=")[0] in flags for word in self.arguments
        )

    def values(self, *flags: str) -> list[str]:
        """What an option was given, each time: `--x 1`, `--x=1`, `-x1`."""
        found: list[str] = []
        for index, word in enumerate(self.arguments):
            name, equals, value = word.partition("=")
            if word in flags:
                found += self.arguments[index + 1 : index + 2]
            elif equals and name in flags and name.startswith("--"):
                found.append(value)
            elif word[:2] in flags and _joined(word):
                found.append(word[2:].removeprefix("="))
        return found

    def value(self, *flags: str) -> str | None:
        return next(iter(self.values(*flags)[-1:]), None)

    def number(self, *flags: str) -> float | None:
        """The value of an option as a number; None if it is none, or computed."""
        try:
            return float(self.value(*flags) or "")
        except ValueError:
            return None

    @property
    def target(self) -> str | None:
        """The application it was given: the first word that is no option's."""
        flags = _FLAGS.get(self.name, set())
        skip = False
        for word in self.arguments:
            if skip:
                skip = False
            elif word.startswith("-"):
                skip = "=" not in word and word not in flags and not _joined(word)
            else:
                return word
        return None


def _joined(word: str) -> bool:
    """Whether a short option has its value in the same word: -w4."""
    return bool(re.match(r"-[^-].", word))


def split(text: str) -> list[Command]:
    """The simple commands of a shell text. Raises ValueError if it is not one."""
    lexer = shlex.shlex(_REDIRECTION.sub(" ", text), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    groups: list[list[str]] = [[]]
    for token in lexer:
        if token in _SEPARATORS or set(token) <= set("();<>|&"):
            groups.append([])
        else:
            groups[-1].append(token)
    filled = [words for words in groups if words]
    return [
        Command(tuple(words), executed="exec" in words[:3], alone=len(filled) == 1)
        for words in filled
    ]


def shell_script(words: Sequence[str]) -> str | None:
    """The text of `sh -c "text"`."""
    words = _unwrapped(words)[0]
    if words and PurePosixPath(words[0]).name in ("sh", "bash", "ash", "dash", "zsh"):
        for index, word in enumerate(words[1:], start=1):
            if re.fullmatch(r"-[a-z]*c[a-z]*", word) and index + 1 < len(words):
                return words[index + 1]
            if not word.startswith("-"):
                return None
    return None


def script_file(words: Sequence[str]) -> str | None:
    """The script that a command runs: `sh start.sh`, `./start`, `/app/start.sh`."""
    words = _unwrapped(words)[0]
    if words and PurePosixPath(words[0]).name in ("sh", "bash", "ash", "dash", "zsh"):
        words = [word for word in words[1:] if not word.startswith("-")]
    if words and ("/" in words[0] or words[0].endswith((".sh", ".bash"))):
        return words[0]
    return None


def server(words: Sequence[str]) -> Server | None:
    """The server that a simple command starts, if it is one."""
    words, environ, executed = _unwrapped(words)
    if not words:
        return None
    name = PurePosixPath(words[0]).name
    rest = list(words[1:])
    if re.fullmatch(r"python[\d.]*", name):
        while rest and rest[0].startswith("-") and rest[0] != "-m":
            del rest[: 2 if rest[0] in ("-W", "-X") else 1]
        if rest[:1] == ["-m"] and len(rest) > 1:
            name, rest = rest[1], rest[2:]
        elif rest:
            name, rest = PurePosixPath(rest[0]).name, rest[1:]
    if name in ("manage.py", "django-admin", "django"):
        if rest[:1] in (["runserver"], ["runserver_plus"]):
            return Server("runserver", tuple(rest[1:]), environ, executed)
        return None
    if name == "djasgi":
        if rest[:1] != ["serve"]:
            return None
        rest = rest[1:]
    if name not in SERVERS:
        return None
    return Server(name, tuple(rest), environ, executed)


def _unwrapped(words: Sequence[str]) -> tuple[list[str], dict[str, str], bool]:
    """A command without what runs it, the variables it sets, whether it is exec'd."""
    rest = list(words)
    environ: dict[str, str] = {}
    executed = False
    while rest:
        first = PurePosixPath(rest[0]).name
        if _ASSIGNMENT.match(rest[0]):
            name, _, value = rest.pop(0).partition("=")
            environ[name] = value
        elif first == "env":
            rest = _without_options(rest[1:])
        elif first in _PREFIXES:
            executed = executed or first == "exec"
            rest = _without_options(rest[1:])
            if first in ("doppler", "chamber"):
                rest = rest[rest.index("--") + 1 :] if "--" in rest else rest[1:]
        elif first in _WITH_USER or (
            first == "newrelic-admin" and rest[1:2] == ["run-program"]
        ):
            rest = rest[2:]
        elif first in _RUNNERS and "run" in rest[1:]:
            rest = _without_options(rest[rest.index("run") + 1 :], values=True)
        elif rest[0] == "--":
            rest.pop(0)
        else:
            break
    return rest, environ, executed


_RUNNER_VALUES = {
    *("--package", "--group", "--extra", "--with", "--env-file", "--project"),
    *("--directory", "--python", "-p", "-n", "--name", "--no-group", "--only-group"),
}


def _without_options(words: Sequence[str], *, values: bool = False) -> list[str]:
    rest = list(words)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        if values and word in _RUNNER_VALUES and rest:
            rest.pop(0)
    return rest


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a script, those that end in a backslash joined to the next."""
    held = ""
    start = 0
    for number, line in enumerate(text.split("\n"), start=1):
        start = start or number
        if line.rstrip("\r").endswith("\\"):
            held += line.rstrip("\r")[:-1] + " "
            continue
        yield start, held + line.rstrip("\r")
        held, start = "", 0
    if held:
        yield start, held
