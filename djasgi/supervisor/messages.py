"""What the processes write to the supervisor: one JSON object a line."""

from __future__ import annotations

import json
import os
import traceback
from contextlib import suppress
from errno import EMFILE, ENFILE
from typing import Any

from djasgi.errors import DjasgiError, ListenError, ProjectError, UsageError
from djasgi.supervisor.descriptors import descriptors_exhausted

MAX_TEXT = 64 * 1024
MAX_MESSAGE = 1024 * 1024


def send(pipe: int, message: dict[str, Any]) -> bool:
    """Write `message` to `pipe`; whether there is anybody who reads it."""
    data = memoryview(json.dumps(message).encode() + b"\n")
    with suppress(BrokenPipeError):
        while data:
            data = data[os.write(pipe, data) :]
        return True
    return False


class Inbox:
    """Messages out of the bytes of a pipe, in any pieces."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages that `data` completes.

        A line that is none is a message `{"line": ...}`: faulthandler writes the stacks
        of a worker into the same pipe.
        """
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.rest = self.rest[:MAX_MESSAGE]
        return [_message(line) for line in lines]


def _message(line: bytes) -> dict[str, Any]:
    if line.startswith(b"{"):
        with suppress(ValueError, RecursionError):
            message = json.loads(line)
            if isinstance(message, dict):
                return message
    return {"line": line[:1000].decode(errors="replace")}


def as_error(error: BaseException) -> DjasgiError:
    """`error` for people: a DjasgiError as it is, anything else with its traceback."""
    if isinstance(error, DjasgiError):
        return error
    if isinstance(error, OSError) and error.errno in (EMFILE, ENFILE):
        return descriptors_exhausted()
    summary = traceback.format_exception_only(error)[-1].strip()
    return DjasgiError(
        f"Serving failed: {summary[:1000]}",
        hint="The traceback says where.",
        details="".join(traceback.format_exception(error)).rstrip(),
    )


def encode_failure(error: DjasgiError) -> dict[str, Any]:
    """The message for `error`; of a long text the end, where the cause is, is kept."""
    return {
        "type": "failed",
        "exit_code": int(error.exit_code),
        "message": error.message[-MAX_TEXT:],
        "hint": error.hint[-MAX_TEXT:],
        "details": error.details[-MAX_TEXT:],
    }


def decode_failure(message: dict[str, Any]) -> DjasgiError:
    """The error of a message, of the class that has its exit code."""
    kinds = {int(k.exit_code): k for k in (UsageError, ProjectError, ListenError)}
    code = message.get("exit_code")
    kind = kinds.get(code, DjasgiError) if isinstance(code, int) else DjasgiError
    return kind(
        str(message.get("message", "")),
        hint=str(message.get("hint", "")),
        details=str(message.get("details", "")),
    )
