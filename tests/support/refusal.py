"""What a command that must fail leaves behind: its words, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import djasgi as package
from tests.support.command import djasgi

OURS = str(Path(package.__file__).parent)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was told to the user."""

    code: int
    lines: list[str]  # from "Error: " on
    traceback: str  # the user's own, before that
    output: str


def refused(
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    prefix: tuple[str, ...] = (),
    preexec: Callable[[], None] | None = None,
    folder: Path | None = None,
) -> Refusal:
    """Run a command that must fail, on a free port where it does not say otherwise.

    Asserts what holds for every failure: one to three lines with a remedy, no frame of
    djasgi or of the import system, no claim of serving, no process that stays, and no
    file that was not in `folder` (`cwd`) before.
    """
    folder = folder or cwd
    before = files_in(folder)
    variables = {"DJASGI_PORT": "0"} | dict(env or {})
    result = djasgi(
        *arguments, cwd=cwd, env=variables, prefix=prefix, preexec=preexec, timeout=30
    )
    said = result.stderr.splitlines()
    told = [n for n, line in enumerate(said) if line.startswith("Error: ")]
    assert told, f"exit {result.returncode}\n{result.stdout}\n{result.stderr}"
    lines, traceback = said[told[-1] :], "\n".join(said[: told[-1]])
    assert 2 <= len(lines) <= 3, result.stderr
    assert all(line.strip() and line.isprintable() for line in lines), result.stderr
    assert all(line.isprintable() for line in said), result.stderr
    assert OURS not in traceback
    assert "importlib" not in traceback
    assert not [word for word in CLAIMS if word in result.stdout], result.stdout
    assert processes_in(folder) == []
    assert files_in(folder) == before
    return Refusal(result.returncode, lines, traceback, result.stdout)


CLAIMS = ("listening", "ready", "http://", "https://", "unix:")


def files_in(folder: Path) -> set[Path]:
    """Everything below `folder` that can be seen."""
    return set(folder.rglob("*"))


def processes_in(folder: Path) -> list[int]:
    """The processes whose working directory is in `folder`, where the system tells."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if Path(os.readlink(process / "cwd")).is_relative_to(folder):  # noqa: PTH115  # it may be gone
                found.append(int(process.name))
    return found
