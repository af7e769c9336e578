"""Runs the djasgi command many times: a process that has Django imported, and forks.

As a script it is that process: a line of JSON with arguments, folder and environment on
standard input, a line with what came of it on standard output.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from djasgi.checks.base import all_checks
from tests.support.command import environment

PRELOADED = (
    "channels",
    "django.contrib.messages",
    "django.core.checks",
    "django.core.handlers.asgi",
    "django.core.management",
    "django.db",
    "django.urls",
    "djasgi.checking",
    "djasgi.findings",
)
ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Result:
    """What a command came to."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.stdout)
        return value

    @property
    def ids(self) -> list[str]:
        """The ids of the findings of `--format json`."""
        return [finding["id"] for finding in self.json["findings"]]


class Zygote:
    """The process, for as long as the block lasts."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment(PYTHONPATH=str(ROOT)),
            text=True,
        )
        return self

    def __exit__(self, *details: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def run(
        self, *arguments: str, cwd: Path, env: Mapping[str, str] | None = None
    ) -> Result:
        """`djasgi ARGUMENTS` in `cwd`, with nothing inherited but what `env` says."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = [list(arguments), str(cwd), environment(**(env or {}))]
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return Result(**json.loads(self._process.stdout.readline()))


def serve() -> None:
    """Fork for each line of standard input."""
    for name in PRELOADED:
        importlib.import_module(name)
    all_checks()
    for line in sys.stdin:
        arguments, cwd, environ = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            pid = os.fork()
            if pid == 0:
                _run(arguments, cwd, environ, (out.fileno(), err.fileno()))
            _, status = os.waitpid(pid, 0)
            answer: dict[str, Any] = {"code": os.waitstatus_to_exitcode(status)}
            for name, file in (("stdout", out), ("stderr", err)):
                file.seek(0)
                answer[name] = file.read().decode()
        print(json.dumps(answer), flush=True)


def _run(
    arguments: list[str], cwd: str, environ: dict[str, str], outputs: tuple[int, int]
) -> None:
    code: Any = 1
    try:
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(environ)
        from djasgi import cli

        cli.main(arguments)
    except SystemExit as error:
        code = error.code
    except BaseException:  # noqa: BLE001  # the test shows it
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(code or 0))


if __name__ == "__main__":
    serve()
