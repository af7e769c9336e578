"""The errors that are for people, and the exit codes of every command."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the exit status of a djasgi command means. A contract: never reused."""

    STOPPED = 0
    FAILURE = 1
    USAGE = 2
    PROJECT = 3
    LISTEN = 4


EXIT_CODES: dict[ExitCode, str] = {
    ExitCode.STOPPED: "stopped as asked",
    ExitCode.FAILURE: (
        "unexpected failure; for check: findings at or above --fail-level"
    ),
    ExitCode.USAGE: (
        "what was typed or configured is wrong: option, value, configuration file, "
        "environment, contradiction"
    ),
    ExitCode.PROJECT: (
        "the project does not load: not found, ambiguous, import error, settings, "
        "lifespan startup, workers that do not boot"
    ),
    ExitCode.LISTEN: "cannot listen: address in use, permission, TLS files",
}


class DjasgiError(Exception):
    """A failure that the user can mend.

    `message` says what is wrong and where, `hint` what to do next; the hint has no
    default, so that nobody forgets it. `details` is shown as it is between them: the
    user's own traceback, when it is their code that failed to import.
    """

    exit_code = ExitCode.FAILURE

    def __init__(self, message: str, *, hint: str, details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        return "\n".join(filter(None, (self.message, self.hint)))


class UsageError(DjasgiError):
    """What was typed or configured is wrong."""

    exit_code = ExitCode.USAGE


class ProjectError(DjasgiError):
    """The project does not load."""

    exit_code = ExitCode.PROJECT


class ListenError(DjasgiError):
    """The sockets or the TLS files do not allow listening."""

    exit_code = ExitCode.LISTEN


def nearest(word: str, known: list[str] | tuple[str, ...]) -> str | None:
    """The entry of `known` that `word` most likely means, or None."""
    import difflib

    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return matches[0] if matches else None
