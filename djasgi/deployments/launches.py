"""How a project is launched, as its Procfile, Dockerfile, compose file or unit says."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from djasgi.deployments import commands, yaml
from djasgi.deployments.commands import Server
from djasgi.deployments.launch import Deployments, Launch
from djasgi.deployments.purpose import (
    DEVELOPMENT,
    PRODUCTION,
    is_development,
    kind_of,
    words_of,
)
from djasgi.source import is_file
from djasgi.tree import is_inside, own_folders, up_to_repository

MAX_FILE = 256 * 1024
"""The largest deployment file that is read, in bytes."""

MAX_DEPTH = 3
"""Folders below the repository's root that are looked into."""


def find(root: Path) -> Deployments:
    """The launches in the deployment files of the repository that `root` is in.

    Files and services for development are left out: by their names and variables,
    because they mount the source, or because others of their kind are for production.
    """
    base = up_to_repository(root)[-1]
    reader = _Reader(base, root)
    found = [entry for folder in _folders(base) for entry in _files(folder, base)]
    production = {kind for kind, _, words in found if words & PRODUCTION}
    for kind, path, words in found:
        is_production = bool(words & PRODUCTION) or kind not in production
        if is_production and not words & DEVELOPMENT:
            reader.file(path, kind)
    return reader.result()


def _files(folder: Path, base: Path) -> Iterator[tuple[str, Path, set[str]]]:
    """The deployment files in a folder: kind, path, and the words of the path."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
    except OSError:
        return
    for name in names:
        path = folder / name
        kind = kind_of(name)
        if kind and is_file(path) and is_inside(path, base):
            yield kind, path, words_of(path.relative_to(base))


def _folders(base: Path) -> Iterator[Path]:
    level = [base]
    for depth in range(MAX_DEPTH + 1):
        yield from level
        if depth < MAX_DEPTH:
            level = [inner for folder in level for inner in own_folders(folder, base)]


class _Reader:
    def __init__(self, base: Path, root: Path) -> None:
        self.base = base
        self.root = root
        self.launches: list[Launch] = []
        self.files: list[Path] = []
        self.texts: dict[Path, str] = {}
        self.skipped: list[tuple[Path, str]] = []

    def result(self) -> Deployments:
        seen: dict[tuple[Path, int, str], Launch] = {}
        for launch in self.launches:
            seen.setdefault((launch.file, launch.line, launch.server.name), launch)
        return Deployments(
            tuple(seen.values()), tuple(self.files), self.texts, tuple(self.skipped)
        )

    def file(self, path: Path, kind: str) -> None:
        text = self.read(path)
        if text is None:
            return
        self.files.append(path)
        self.texts[path] = text
        try:
            match kind:
                case "Procfile":
                    self.procfile(path, text)
                case "Dockerfile":
                    self.dockerfile(path, text)
                case "compose":
                    self.compose(path, text)
                case "systemd":
                    self.unit(path, text)
                case "fly.toml":
                    self.fly(path, text)
                case "render.yaml":
                    self.render(path, text)
        except (ValueError, RecursionError) as error:
            self.skipped.append((path, f"not understood: {error}"))

    def read(self, path: Path) -> str | None:
        try:
            with path.open("rb") as file:
                data = file.read(MAX_FILE + 1)
            if len(data) > MAX_FILE:
                self.skipped.append((path, "too large"))
                return None
            return data.decode()
        except OSError as error:
            self.skipped.append((path, f"cannot be read: {error.strerror}"))
        except UnicodeDecodeError:
            self.skipped.append((path, "not text"))
        return None

    # Each of these turns one kind of file into commands.

    def procfile(self, path: Path, text: str) -> None:
        for number, line in enumerate(text.splitlines(), start=1):
            match = re.match(r"\s*([\w-]+)\s*:\s*(.+)", line)
            if match is None:
                continue
            base = Launch(
                "Procfile", path, number, line, _NOTHING,
                environ_known=False, facts={"process": match[1]},
            )  # fmt: skip
            self.shell_text(match[2], base)

    def dockerfile(self, path: Path, text: str) -> None:
        environ: dict[str, str] = {}
        facts: dict[str, str] = {}
        last: dict[str, tuple[int, str]] = {}
        copies: list[tuple[str, str]] = []
        stage = ""
        for number, line in commands.logical_lines(text):
            match = re.match(r"\s*([A-Za-z]+)\s+(.*)", line, re.DOTALL)
            if match is None or line.lstrip().startswith("#"):
                continue
            word, rest = match[1].upper(), match[2].strip()
            if word == "FROM":
                last.clear()
                stage = rest.lower().rpartition(" as ")[2]
            elif word == "ENV":
                environ |= _docker_env(rest)
            elif word == "SHELL":
                facts["shell"] = rest
            elif word in ("CMD", "ENTRYPOINT"):
                last[word] = (number, rest)
            elif word == "COPY":
                parts = [p for p in rest.split() if not p.startswith("--")]
                copies += [(source, parts[-1]) for source in parts[:-1]]
            elif word == "HEALTHCHECK":
                facts["health"] = rest
        if words_of(Path(stage)) & DEVELOPMENT:
            return
        base = Launch("Dockerfile", path, 0, "", _NOTHING, environ, facts=facts)
        self.docker_command(path, text, last, base, copies)

    def docker_command(
        self,
        path: Path,
        text: str,
        last: Mapping[str, tuple[int, str]],
        base: Launch,
        copies: Sequence[tuple[str, str]],
    ) -> None:
        lines = text.splitlines()
        entry, command = last.get("ENTRYPOINT"), last.get("CMD")
        entry_words = _exec_form(entry[1]) if entry else None
        command_words = _exec_form(command[1]) if command else None
        for found, words in ((entry, entry_words), (command, command_words)):
            if found is None:
                continue
            number, rest = found
            here = replace(base, line=number, source=lines[number - 1])
            if words is None:
                self.shell_text(rest, here, form=True, copies=copies)
                continue
            if found is command and entry_words and commands.server(entry_words):
                continue  # its arguments, taken below
            if found is entry and commands.server(words) and command_words:
                self.exec_words([*words, *command_words], here, copies=copies)
            else:
                self.exec_words(words, here, copies=copies)

    def compose(self, path: Path, text: str) -> None:
        document = yaml.parse(text)
        lines = text.splitlines()
        services = document.get("services")
        for name, service in services.pairs() if services else ():
            environ = {
                key: node.text or "" for key, node in service.pairs("environment")
            }
            if is_development(name, service, environ):
                continue
            if self.mounts_source(path, service):
                continue
            facts = {
                "service": name,
                "stop_grace_period": service.scalar("stop_grace_period") or "",
                "network_mode": service.scalar("network_mode") or "",
                "ports": " ".join(
                    node.text or "published" for node in service.each("ports")
                ),
                "health": " ".join(
                    node.text or "" for node in service.each("healthcheck", "test")
                ),
            }
            known = service.get("env_file") is None
            for key in ("entrypoint", "command"):
                node = service.get(key)
                if node is None:
                    continue
                # A key without a value stands on its own line.
                base = Launch(
                    "compose", path, node.line, lines[node.line - 1], _NOTHING,
                    environ, environ_known=known, facts=facts,
                )  # fmt: skip
                if node.items is not None:
                    self.exec_words([item.text or "" for item in node.items], base)
                elif node.text:
                    # Split into words, not run by a shell.
                    self.exec_words(_words(node.text), base)

    def mounts_source(self, path: Path, service: yaml.Node) -> bool:
        """Whether a folder of the source is mounted: that is development."""
        for volume in service.each("volumes"):
            source = volume.scalar("source") or (volume.text or "").partition(":")[0]
            if not source.startswith("."):
                continue
            folder = Path(os.path.normpath(path.parent / source))
            if self.root.is_relative_to(folder) or folder.name == self.base.name:
                return True
            if folder.is_relative_to(self.root) and any(folder.glob("*.py")):
                return True
        return False

    def unit(self, path: Path, text: str) -> None:
        environ: dict[str, str] = {}
        facts: dict[str, str] = {}
        known = True
        starts: list[tuple[int, str]] = []
        for number, line in commands.logical_lines(text):
            key, _, value = line.partition("=")
            match key.strip():
                case "Environment":
                    for word in _words(value):
                        name, _, text_ = word.partition("=")
                        environ[name] = text_
                case "EnvironmentFile":
                    known = False
                case "TimeoutStopSec":
                    facts["TimeoutStopSec"] = value.strip()
                case "ExecStart":
                    starts.append((number, value.strip().lstrip("@-:+!|")))
        lines = text.splitlines()
        for number, value in starts:
            base = Launch(
                "systemd", path, number, lines[number - 1], _NOTHING,
                environ, environ_known=known, facts=facts,
            )  # fmt: skip
            self.exec_words(_words(value), base)

    def fly(self, path: Path, text: str) -> None:
        document = tomllib.loads(text)
        environ = {k: str(v) for k, v in _table(document, "env").items()}
        facts = {
            "kill_timeout": str(document.get("kill_timeout", "")),
        }
        lines = text.splitlines()
        for name, value in _table(document, "processes").items():
            number = next(
                (n for n, line in enumerate(lines, 1)
                 if re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*=", line)),
                1,
            )  # fmt: skip
            base = Launch(
                "fly.toml", path, number, lines[number - 1], _NOTHING,
                environ, environ_known=False, facts={**facts, "process": name},
            )  # fmt: skip
            self.exec_words(_words(str(value)), base)

    def render(self, path: Path, text: str) -> None:
        document = yaml.parse(text)
        lines = text.splitlines()
        for service in document.each("services"):
            node = service.get("startCommand") or service.get("dockerCommand")
            environ = {}
            known = True
            for variable in service.each("envVars"):
                key = variable.scalar("key")
                if key is None or variable.scalar("value") is None:
                    known = False
                else:
                    environ[key] = variable.scalar("value") or ""
            if node is None or not node.text:
                continue
            base = Launch(
                "render.yaml", path, node.line, lines[node.line - 1], _NOTHING,
                environ, environ_known=known,
                facts={
                    "process": service.scalar("type") or "",
                    "health": service.scalar("healthCheckPath") or "",
                },
            )  # fmt: skip
            self.shell_text(node.text, base)

    # Commands become launches; scripts are opened.

    def exec_words(
        self,
        words: Sequence[str],
        base: Launch,
        copies: Sequence[tuple[str, str]] = (),
    ) -> None:
        text = commands.shell_script(words)
        if text is not None:
            self.shell_text(text, base, form=True, copies=copies)
        elif found := commands.server(words):
            self.launches.append(replace(base, server=found))
        else:
            self.script(words, base, copies)

    def shell_text(
        self,
        text: str,
        base: Launch,
        *,
        form: bool = False,
        copies: Sequence[tuple[str, str]] = (),
        depth: int = 0,
    ) -> None:
        """`form`: the shell is the container's first process, which gets the signals."""
        for command in commands.split(text):
            inner = commands.shell_script(command.words)
            if inner is not None and depth < MAX_DEPTH:
                self.shell_text(inner, base, form=form, copies=copies, depth=depth + 1)
            elif found := commands.server(command.words):
                # A shell replaces itself by the only command of its text.
                between = form and not found.executed and not command.alone
                self.launches.append(replace(base, server=found, shell=between))
            else:
                self.script(command.words, base, copies, executed=command.executed)

    def script(
        self,
        words: Sequence[str],
        base: Launch,
        copies: Sequence[tuple[str, str]],
        *,
        executed: bool = False,
    ) -> None:
        name = commands.script_file(words)
        path = name and self.local_script(name, base.file, copies)
        if not path or len(base.through) >= MAX_DEPTH or path == base.file:
            return
        if any(path == seen for seen, _ in base.through):
            return
        text = self.read(path)
        if text is None or not _is_shell(path, text):
            return
        through = (*base.through, (base.file, base.line))
        environ = dict(base.environ)
        known = base.environ_known
        found = [*commands.logical_lines(text)]
        for number, line in found:
            try:
                parts = commands.split(line)
            except ValueError:
                continue  # part of a construct over several lines
            for command in parts:
                if command.words[0] == "export":
                    for word in command.words[1:]:
                        key, equals, value = word.partition("=")
                        if equals:
                            environ[key] = value
                elif command.words[0] in (".", "source"):
                    known = False
                here = replace(
                    base, file=path, line=number, source=line.strip(),
                    environ=dict(environ), environ_known=known, through=through,
                )  # fmt: skip
                if server := commands.server(command.words):
                    # One that traps signals may well pass them on.
                    between = not server.executed and "trap " not in text
                    self.launches.append(replace(here, server=server, shell=between))
                elif '"$@"' not in line:
                    self.script(command.words, here, copies)

    def local_script(
        self, name: str, file: Path, copies: Sequence[tuple[str, str]]
    ) -> Path | None:
        """The file of the repository that becomes the script `name` of the image."""
        pure = PurePosixPath(name)
        sources = [
            source
            for source, destination in copies
            if PurePosixPath(destination) == pure
            or PurePosixPath(destination) / PurePosixPath(source).name == pure
        ]
        parts = pure.parts[1:] if pure.is_absolute() else pure.parts
        candidates = [base / s for s in sources for base in (self.base, file.parent)]
        for base in (file.parent, self.base, self.root):
            candidates += [base.joinpath(*parts[n:]) for n in range(len(parts))]
        for path in candidates:
            try:
                if is_file(path) and is_inside(path, self.base):
                    return path
            except (OSError, ValueError, RuntimeError):
                continue
        return None


_NOTHING = Server("", ())


def _is_shell(path: Path, text: str) -> bool:
    first = text.partition("\n")[0]
    if first.startswith("#!"):
        return bool(re.search(r"\b(ba|da|a|z|)sh\b", first))
    return path.suffix in ("", ".sh", ".bash")


def _table(document: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = document.get(name, {})
    return value if isinstance(value, dict) else {}


def _words(text: str) -> list[str]:
    import shlex

    return shlex.split(text)


def _exec_form(text: str) -> list[str] | None:
    """The words of `["a", "b"]`; None for the shell form."""
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except ValueError:
        return None  # Docker takes it as the shell form, too
    return words if all(isinstance(word, str) for word in words) else None


def _docker_env(text: str) -> dict[str, str]:
    try:
        words = _words(text)
    except ValueError:
        return {}
    if words and "=" not in words[0]:
        return {words[0]: " ".join(words[1:])}
    pairs = (word.partition("=") for word in words)
    return {name: value for name, _, value in pairs}
