"""What the supervisor is told, and what it decides: the words of the state machine."""

from __future__ import annotations

from enum import Enum

from djasgi.errors import ExitCode
from djasgi.supervisor.record import Record


class Cause(Enum):
    """Why a generation did not boot."""

    FAILED = "failed"
    EXITED = "exited"
    TIMEOUT = "timeout"
    SPAWN = "spawn"
    LISTEN = "listen"
    REFUSED = "refused"
    """The new code or configuration was not even started: the check said why."""


class Started(Record):
    """The supervisor begins."""


class Resumed(Record):
    """The supervisor has re-executed itself and wants so many workers of the new code."""

    workers: int


class Prepared(Record):
    """The code of a generation is loaded: workers can be spawned from it."""

    generation: int


class PrepareFailed(Record):
    """The code of a generation does not load, or its process has ended."""

    generation: int
    exit_code: int = ExitCode.PROJECT
    status: int | None = None


class PreloaderGone(Record):
    """The process that held the code of a generation is gone."""

    generation: int


class Spawned(Record):
    number: int
    generation: int
    pid: int


class SpawnFailed(Record):
    """No process could be made; `lasting` when waiting will not mend it."""

    number: int
    generation: int
    lasting: bool
    exit_code: int = ExitCode.PROJECT


class Ready(Record):
    pid: int


class Failed(Record):
    """The worker said that it failed, and is about to exit."""

    pid: int
    exit_code: int


class Exited(Record):
    """The process is gone; `status` is the exit code, or minus the signal."""

    pid: int
    status: int


class RetireRequested(Record):
    """A worker has served long enough: replace it, then let it go."""

    pid: int
    reason: str


class Hung(Record):
    """The event loop of a worker has been silent for the hang timeout."""

    pid: int


class Spared(Record):
    """What looked hung is held by a debugger."""

    pid: int


class Listening(Record):
    """The sockets for a generation listen."""

    generation: int


class ListenFailed(Record):
    exit_code: int


class StopRequested(Record):
    immediate: bool = False


class ReloadRequested(Record):
    pass


class Checked(Record):
    """A throw-away process has read the new configuration, and it is sound."""


class ReloadAborted(Record):
    """The reload ends before anything of the new code was started."""


class Scale(Record):
    """So many workers more, or fewer."""

    by: int


class Tick(Record):
    """Time has passed."""


Event = (
    Started
    | Resumed
    | Prepared
    | PrepareFailed
    | PreloaderGone
    | Spawned
    | SpawnFailed
    | Ready
    | Failed
    | Exited
    | RetireRequested
    | Hung
    | Spared
    | Listening
    | ListenFailed
    | StopRequested
    | ReloadRequested
    | Checked
    | ReloadAborted
    | Scale
    | Tick
)


class Prepare(Record):
    """Answered by Prepared, PrepareFailed or PreloaderGone."""

    generation: int


class Discard(Record):
    """End the process that holds the code of a generation, if there is one.

    Spawns that it has not answered are answered by SpawnFailed.
    """

    generation: int


class Spawn(Record):
    """Answered by Spawned or SpawnFailed."""

    number: int
    generation: int


class Terminate(Record):
    pid: int


class Kill(Record):
    pid: int


class Dump(Record):
    """Have the worker write the stacks of its threads."""

    pid: int


class Listen(Record):
    """Answered by Listening or ListenFailed."""

    generation: int


class Announce(Record):
    pass


class CloseListeners(Record):
    pass


class NotReady(Record):
    """Tell whoever asks for readiness that this instance is going away."""


class ReportFailure(Record):
    """Tell people why the program ends. At most once."""

    cause: Cause
    number: int
    pid: int | None = None
    status: int | None = None


class Lost(Record):
    """Log that a worker is gone unasked; the next one starts in `delay` seconds.

    `delay` is None when its successor is on its way already. `crashes` counts what
    has befallen this place without a time of health between.
    """

    number: int
    pid: int
    status: int
    delay: float | None
    crashes: int = 1


class SpawnDelayed(Record):
    """Log that no process could be made; it is tried again in `delay` seconds."""

    number: int
    delay: float


class Overdue(Record):
    """Log that a worker has not become ready, or has not ended, in time."""

    number: int
    pid: int
    booting: bool


class Stuck(Record):
    """Log that a worker is killed because its event loop was silent."""

    number: int
    pid: int


class Retiring(Record):
    """Log that a successor is started for a worker."""

    number: int
    pid: int
    reason: str


class Scaled(Record):
    """Log that there are to be so many workers from now on."""

    workers: int


class Check(Record):
    """Start the throw-away process. Answered by Checked or ReloadAborted."""


class CancelCheck(Record):
    """End the throw-away process; it is not to be answered any more."""


class Reexecute(Record):
    """Replace this program by its new self. Answered by ReloadAborted if it fails.

    Only ever the last action for a Tick, when everything that was read is told.
    """


class ReloadFailed(Record):
    """Log why the old workers go on."""

    cause: Cause
    number: int = 0
    pid: int | None = None
    status: int | None = None


class Reloaded(Record):
    """Log that the new generation serves."""


class Exit(Record):
    code: int


Action = (
    Prepare
    | Discard
    | Spawn
    | Terminate
    | Kill
    | Dump
    | Listen
    | Announce
    | CloseListeners
    | NotReady
    | ReportFailure
    | Lost
    | SpawnDelayed
    | Overdue
    | Stuck
    | Retiring
    | Scaled
    | Check
    | CancelCheck
    | Reexecute
    | ReloadFailed
    | Reloaded
    | Exit
)
