"""Where workers come from: forks of this process, or of one that has loaded the code."""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from errno import ECONNREFUSED, EPIPE
from typing import Any, NoReturn

from djasgi.errors import ExitCode
from djasgi.supervisor import events
from djasgi.supervisor.board import Board, Slot
from djasgi.supervisor.children import Child
from djasgi.supervisor.events import Event
from djasgi.supervisor.handover import Inherited
from djasgi.supervisor.job import Job, Policy
from djasgi.supervisor.system import adopt_orphans, can_adopt
from djasgi.supervisor.worker import run_worker

logger = logging.getLogger("djasgi")


@dataclass(slots=True, eq=False)
class Preloader:
    """A process with the code of a generation, and what it was asked for."""

    child: Child
    commands: socket.socket
    trial: bool = False
    """It only shows that the code loads; workers are fresh ones."""
    unborn: list[Child] = field(default_factory=list)

    def close(self) -> None:
        self.child.close()
        self.commands.close()


class Spawning:
    """Makes processes for the supervisor, and knows those that are no workers."""

    def __init__(
        self,
        job: Job,
        board: Board,
        policy: Policy,
        *,
        parent_pipe: int,
        watch: Callable[[Child], None],
        descriptors: Callable[[], Iterator[int]],
    ) -> None:
        """`descriptors` are those of the supervisor that a fork must close."""
        self.failed: Child | None = None
        """What has not loaded the code, if that was the last failure."""
        self.error: OSError | None = None
        """Why no process could be made, if that was."""
        self._job = job
        self._board = board
        self._policy = policy
        self._parent_pipe = parent_pipe
        self._watch = watch
        self._descriptors = descriptors
        self._preloaders: dict[int, Preloader] = {}
        self._fresh: set[int] = set()
        self._finder: Child | None = None
        self._found = ""

    def cannot(self, error: OSError) -> None:
        """No process could be made, because of `error`."""
        self.failed, self.error = None, error

    def _not_loaded(self, child: Child) -> None:
        self.failed, self.error = child, None

    # The code of a generation

    def prepare(self, generation: int, *, reloading: bool) -> list[Event]:
        """Load the code of a generation, if workers are to share it.

        Raises OSError when no process can be made.
        """
        self._fresh.discard(generation)
        trial = not self._is_shared()
        if self._job.load is None or (trial and not reloading):
            self._fresh.add(generation)
            return [events.Prepared(generation)]
        ours, theirs = socket.socketpair()
        try:
            child = self._fork(
                0,
                generation,
                lambda pipe: self._preload(pipe, theirs, reloading=reloading),
                ours,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._preloaders[generation] = Preloader(child, ours, trial)
        self._watch(child)
        if not trial:
            # After the fork, so that it does not hold up the import.
            adopt_orphans()
        return []

    def _is_shared(self) -> bool:
        """Whether workers are to be forks of a process that has loaded the code.

        With one worker nothing is shared: that process would only cost memory.
        """
        worth = self._job.preload == "on" or self._policy.workers > 1
        return self._job.preload != "off" and worth and can_adopt()

    def _preload(
        self, pipe: int, commands: socket.socket, *, reloading: bool
    ) -> NoReturn:
        from djasgi.supervisor.preloader import Preloading

        Preloading(
            self._job,
            commands=commands,
            pipe=pipe,
            parent_pipe=self._parent_pipe,
            board=self._board,
            parent=os.getppid(),
            reloading=reloading,
        ).run()

    def discard(self, generation: int) -> list[Event]:
        """Kill the process with that code; what it was asked for has failed."""
        self._fresh.discard(generation)
        preloader = self._preloaders.pop(generation, None)
        if preloader is None:
            return []
        with suppress(ProcessLookupError):
            os.kill(preloader.child.pid, signal.SIGKILL)
        return self._over(preloader)

    def _over(self, preloader: Preloader) -> list[Event]:
        preloader.close()
        error = BrokenPipeError(EPIPE, "the process with the code has ended")
        if preloader.unborn:
            self.cannot(error)
        return [event for child in [*preloader.unborn] for event in self._fail(child)]

    def told(self, child: Child, message: dict[str, Any]) -> list[Event]:
        """What a message of a process that is no worker means."""
        generation = child.generation
        preloader = self._preloaders.get(generation)
        if child is self._finder:
            self._tell_found(message.get("modules", {}))
        if preloader is None or preloader.child is not child:
            return []
        match message.get("type"):
            case "prepared" if preloader.trial:
                self.discard(generation)
                self._fresh.add(generation)
                return [events.Prepared(generation)]
            case "prepared":
                if found := message.get("found"):
                    logger.warning(
                        "preload: forking all the same, with %s (--preload on)", found
                    )
                return [events.Prepared(generation)]
            case "unforkable":
                self._fresh.add(generation)
                self._found = str(message.get("found", ""))
                self._find_culprits(generation)
                return [events.Prepared(generation)]
            case "failed":
                assert child.failure is not None, "Child.read() has set it"  # noqa: S101
                self._not_loaded(child)
                return [events.PrepareFailed(generation, child.failure.exit_code)]
            case "spawn failed":
                number = message["number"]
                unborn = [c for c in preloader.unborn if c.number == number]
                code = message["errno"]
                self.cannot(OSError(code, os.strerror(code)))
                return [event for child in unborn for event in self._fail(child)]
        return []

    # Who it was

    def _find_culprits(self, generation: int) -> None:
        """Import once more, beside the workers, to say which module it was."""
        from djasgi.supervisor.preloader import find_culprits

        load = self._job.load
        assert load is not None, "something was loaded"  # noqa: S101
        try:
            self._finder = self._fork(
                0, generation, lambda pipe: find_culprits(load, pipe, os.getppid())
            )
        except OSError:
            self._tell_found({})
        else:
            self._watch(self._finder)

    def _tell_found(self, modules: dict[str, str]) -> None:
        if self._found:
            # The second import may leave something else as well, or not all of it.
            named = [name for words, name in modules.items() if words in self._found]
            names = ", ".join([*dict.fromkeys(named)][:3])
            logger.info(
                "preload: each worker imports the project itself, because the import "
                "leaves %s%s; --preload on forks all the same",
                self._found,
                f" (module {names})" if names else "",
            )
        self._found = ""

    # Workers

    def spawn(self, number: int, generation: int) -> Child | None:
        """A worker, or None if one was asked for and will say who it is.

        Raises OSError.
        """
        if generation in self._fresh:
            return self._spawn_fresh(number, generation)
        preloader = self._preloaders.get(generation)
        if preloader is None:
            raise ConnectionRefusedError(ECONNREFUSED, "nobody has the code")
        slot = self._board.take()
        read, write = os.pipe()
        child = Child(number, generation, 0, read, slot)
        command = {
            "number": number,
            "slot": slot.number,
            "graceful_timeout": self._policy.graceful_timeout,
        }
        try:
            socket.send_fds(preloader.commands, [json.dumps(command).encode()], [write])
        except OSError:
            child.close()
            self._board.free(slot)
            raise
        finally:
            os.close(write)
        preloader.unborn.append(child)
        self._watch(child)
        return None

    def _spawn_fresh(self, number: int, generation: int) -> Child:
        slot = self._board.take()
        try:
            child = self._fork(
                number, generation, lambda pipe: self._serve(number, pipe, slot)
            )
        except OSError:
            self._board.free(slot)
            raise
        child.slot = slot
        self._watch(child)
        return child

    def _serve(self, number: int, pipe: int, slot: Slot) -> int:
        # What the supervisor's own code registered runs there; logging is ours as well.
        atexit._clear()  # noqa: SLF001  # there is no public way
        atexit.register(logging.shutdown)
        return run_worker(
            number,
            self._job.serve,
            pipe,
            self._parent_pipe,
            self._policy.graceful_timeout,
            board=self._board,
            slot=slot,
        )

    def unborn(self) -> list[Child]:
        """The workers that were asked for and have not said who they are."""
        return [c for p in self._preloaders.values() for c in p.unborn]

    def born(self, child: Child) -> bool:
        """A worker said who it is; whether it is still wanted."""
        preloader = self._preloaders.get(child.generation)
        if preloader is None or child not in preloader.unborn:
            return False
        preloader.unborn.remove(child)
        return True

    def lost(self, child: Child) -> list[Event]:
        """The pipe of a worker has ended before it said who it is."""
        if child not in self.unborn():
            return []
        self.cannot(BrokenPipeError(EPIPE, "it ended before it said who it was"))
        return self._fail(child)

    def _fail(self, child: Child) -> list[Event]:
        preloader = self._preloaders.get(child.generation)
        if preloader is not None and child in preloader.unborn:
            preloader.unborn.remove(child)
        child.close()
        if child.slot is not None:
            self._board.free(child.slot)
        return [events.SpawnFailed(child.number, child.generation, lasting=False)]

    # Exits, and the next supervisor

    def reaped(self, pid: int, status: int) -> list[Event]:
        """What the end of a process that is no worker means."""
        if self._finder is not None and pid == self._finder.pid:
            finder, self._finder = self._finder, None
            for message in finder.read():
                self._tell_found(message.get("modules", {}))
            finder.close()
            self._tell_found({})
            return []
        for generation, preloader in [*self._preloaders.items()]:
            child = preloader.child
            if child.pid == pid:
                happened = [
                    event
                    for message in child.read()
                    for event in self.told(child, message)
                ]
                del self._preloaders[generation]
                happened += self._over(preloader)
                if generation in self._fresh:
                    return happened
                if child.failure is None:
                    self._not_loaded(child)
                return [
                    *happened,
                    events.PrepareFailed(generation, status=status),
                    events.PreloaderGone(generation),
                ]
        return []

    def hand_over(self) -> tuple[list[dict[str, Any]], list[int]]:
        """The preloaders for the next supervisor, and their descriptors."""
        state, descriptors = [], []
        for preloader in self._preloaders.values():
            commands = preloader.commands.fileno()
            state.append({**preloader.child.hand_over(), "commands": commands})
            descriptors.append(commands)
            if preloader.child.pipe is not None:
                descriptors.append(preloader.child.pipe)
        return state, descriptors

    def adopt(self, inherited: Inherited) -> None:
        """Take over the preloaders of the supervisor before this one."""
        for child, commands in inherited.preloaders():
            self._preloaders[child.generation] = Preloader(child, commands)
            self._watch(child)
        if self._preloaders:
            adopt_orphans()
        generation = inherited.machine["generation"]
        if inherited.machine["prepared"] and generation not in self._preloaders:
            self._fresh.add(generation)

    def close(self) -> None:
        """Kill and reap everybody."""
        others = [preloader.child for preloader in self._preloaders.values()]
        others += [self._finder] if self._finder is not None else []
        for child in others:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(child.pid, 0)
            child.close()
        for preloader in self._preloaders.values():
            preloader.commands.close()
            for child in preloader.unborn:
                child.close()
        self._preloaders.clear()
        self._finder = None

    def _fork(
        self,
        number: int,
        generation: int,
        run: Callable[[int], int],
        *others: socket.socket,
    ) -> Child:
        """Fork this process; the child runs `run` with a pipe to us, and ends.

        It keeps neither the supervisor's descriptors nor `others`. Raises OSError.
        """
        _flush()
        read, write = os.pipe()
        # Unblocked only when each side has its own handlers: a signal that comes
        # before would be taken by a handler of the other's and be lost.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                self._become(run, read, write, others)
        except OSError:
            os.close(read)
            raise
        finally:
            os.close(write)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return Child(number, generation, pid, read)

    def _become(
        self,
        run: Callable[[int], int],
        read: int,
        write: int,
        others: tuple[socket.socket, ...],
    ) -> NoReturn:
        """In the child: never to come back to our callers."""
        status: int = ExitCode.FAILURE
        try:
            signal.set_wakeup_fd(-1)
            for descriptor in {read, *self._descriptors(), *self._own_descriptors()}:
                os.close(descriptor)
            for sock in others:
                sock.close()
            status = run(write)
        except BaseException:  # noqa: BLE001  # nothing may go up the stack from here
            traceback.print_exc()
        finally:
            os._exit(status)

    def _own_descriptors(self) -> Iterator[int]:
        yield from self.hand_over()[1]
        for child in [*self.unborn(), *([self._finder] if self._finder else [])]:
            if child.pipe is not None:
                yield child.pipe


def _flush() -> None:
    """Write out what is buffered, or each child would write it again."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if stream is not None:
                stream.flush()
