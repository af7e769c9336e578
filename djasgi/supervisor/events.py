"""What the supervisor is told, and what it decides: the words of the state machine."""

from __future__ import annotations

from enum import Enum

from djasgi.errors import ExitCode
from djasgi.frozen import Frozen


class Cause(Enum):
    """Why a generation did not boot."""

    FAILED = "failed"
    EXITED = "exited"
    TIMEOUT = "timeout"
    SPAWN = "spawn"
    LISTEN = "listen"
    REFUSED = "refused"
    """The new code or configuration was not even started: the check said why."""


class Started(Frozen):
    """The supervisor begins."""


class Resumed(Frozen):
    """The supervisor has re-executed itself and wants so many workers of the new code."""

    workers: int


class Prepared(Frozen):
    """The code of a generation is loaded: workers can be spawned from it."""

    generation: int


class PrepareFailed(Frozen):
    """The code of a generation does not load, or its process has ended."""

    generation: int
    exit_code: int = ExitCode.PROJECT
    status: int | None = None


class PreloaderGone(Frozen):
    """The process that held the code of a generation is gone."""

    generation: int


class Spawned(Frozen):
    number: int
    generation: int
    pid: int


class SpawnFailed(Frozen):
    """No process could be made; `lasting` when waiting will not mend it."""

    number: int
    generation: int
    lasting: bool
    exit_code: int = ExitCode.PROJECT


class Ready(Frozen):
    pid: int


class Failed(Frozen):
    """The worker said that it failed, and is about to exit."""

    pid: int
    exit_code: int


class Exited(Frozen):
    """The process is gone; `status` is the exit code, or minus the signal."""

    pid: int
    status: int


class RetireRequested(Frozen):
    """A worker has served long enough: replace it, then let it go."""

    pid: int
    reason: str


class Hung(Frozen):
    """The event loop of a worker has been silent for the hang timeout."""

    pid: int


class Spared(Frozen):
    """What looked hung is held by a debugger."""

    pid: int


class Listening(Frozen):
    """The sockets for a generation listen."""

    generation: int


class ListenFailed(Frozen):
    exit_code: int


class StopRequested(Frozen):
    immediate: bool = False


class ReloadRequested(Frozen):
    pass


class Checked(Frozen):
    """A throw-away process has read the new configuration, and it is sound."""


class ReloadAborted(Frozen):
    """The reload ends before anything of the new code was started."""


class Scale(Frozen):
    """So many workers more, or fewer."""

    by: int


class Tick(Frozen):
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


class Prepare(Frozen):
    """Answered by Prepared, PrepareFailed or PreloaderGone."""

    generation: int


class Discard(Frozen):
    """End the process that holds the code of a generation, if there is one.

    Spawns that it has not answered are answered by SpawnFailed.
    """

    generation: int


class Spawn(Frozen):
    """Answered by Spawned or SpawnFailed."""

    number: int
    generation: int


class Terminate(Frozen):
    pid: int


class Kill(Frozen):
    pid: int


class Dump(Frozen):
    """Have the worker write the stacks of its threads."""

    pid: int


class Listen(Frozen):
    """Answered by Listening or ListenFailed."""

    generation: int


class Announce(Frozen):
    pass


class CloseListeners(Frozen):
    pass


class NotReady(Frozen):
    """Tell whoever asks for readiness that this instance is going away."""


class ReportFailure(Frozen):
    """Tell people why the program ends. At most once."""

    cause: Cause
    number: int
    pid: int | None = None
    status: int | None = None


class Lost(Frozen):
    """Log that a worker is gone unasked; the next one starts in `delay` seconds.

    `delay` is None when its successor is on its way already. `crashes` counts what
    has befallen this place without a time of health between.
    """

    number: int
    pid: int
    status: int
    delay: float | None
    crashes: int = 1


class SpawnDelayed(Frozen):
    """Log that no process could be made; it is tried again in `delay` seconds."""

    number: int
    delay: float


class Overdue(Frozen):
    """Log that a worker has not become ready, or has not ended, in time."""

    number: int
    pid: int
    booting: bool


class Stuck(Frozen):
    """Log that a worker is killed because its event loop was silent."""

    number: int
    pid: int


class Retiring(Frozen):
    """Log that a successor is started for a worker."""

    number: int
    pid: int
    reason: str


class Scaled(Frozen):
    """Log that there are to be so many workers from now on."""

    workers: int


class Check(Frozen):
    """Start the throw-away process. Answered by Checked or ReloadAborted."""


class CancelCheck(Frozen):
    """End the throw-away process; it is not to be answered any more."""


class Reexecute(Frozen):
    """Replace this program by its new self. Answered by ReloadAborted if it fails.

    Only ever the last action for a Tick, when everything that was read is told.
    """


class ReloadFailed(Frozen):
    """Log why the old workers go on."""

    cause: Cause
    number: int = 0
    pid: int | None = None
    status: int | None = None


class Reloaded(Frozen):
    """Log that the new generation serves."""


class Exit(Frozen):
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
