"""The pool of threads: who gets which thread, when, and when it comes to its end."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import ThreadSensitiveContext, async_to_sync, sync_to_async
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from djasgi.threads import Lease, Pool, Threads, lease as lease_module, release, thread
from djasgi.threads.growth import ROUNDS, TICK
from djasgi.threads.thread import PoolThread
from tests.support.leases import with_lease
from tests.support.process import TIMEOUT

ROOT = Path(__file__).parent.parent.parent


def name() -> str:
    return threading.current_thread().name


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(TIMEOUT):
            await main()

    asyncio.run(bounded())


@contextmanager
def pool_of(minimum: int, maximum: int, **more: Any) -> Iterator[Pool]:
    pool = Pool(minimum, maximum, **more)
    try:
        yield pool
    finally:
        pool.stop()
        assert pool.join(TIMEOUT), "a thread does not end"


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """As `until`, with the event loop going on."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110  # of a thread, which sets no event
            await asyncio.sleep(0.002)
    assert condition(), what


def bound(lease: Lease) -> bool:
    return lease.thread is not None


async def called(lease: Lease, function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.wrap_future(lease.submit(function, *arguments))


# Binding


def test_a_lease_is_bound_when_its_first_call_starts() -> None:
    """A pool that picks a thread on arrival leaves one waiting behind a blocked call."""

    async def main() -> None:
        with pool_of(2, 2) as pool:
            blocked, short = threading.Event(), threading.Event()
            leases = [pool.lease() for _ in range(6)]
            first = leases[0].submit(blocked.wait, TIMEOUT)
            second = leases[1].submit(short.wait, TIMEOUT)
            others = [lease.submit(name) for lease in leases[2:]]
            short.set()
            leases[1].end()
            for lease, future in zip(leases[2:], others, strict=True):
                await asyncio.wrap_future(future)
                lease.end()
            assert second.done()
            assert not first.done()
            blocked.set()
            leases[0].end()

    run(main)


def test_a_thread_belongs_to_one_request_until_it_has_ended() -> None:
    """On threads that requests share call by call, one reads what another has set."""
    local = threading.local()

    async def request(pool: Pool, number: int) -> None:
        lease = pool.lease()
        try:
            await called(lease, setattr, local, "tenant", number)
            for _ in range(3):
                await asyncio.sleep(0.001)
                assert await called(lease, getattr, local, "tenant") == number
        finally:
            lease.end()

    async def main() -> None:
        with pool_of(1, 4) as pool:
            await asyncio.gather(*[request(pool, number) for number in range(100)])
            assert pool.leases == pool.waiting == pool.running == 0
            await eventually(lambda: pool.threads <= 4, "as many as asked for")

    run(main)


def test_calls_of_one_lease_run_one_by_one_in_order() -> None:
    """A lease that spreads its calls over idle threads would mix them."""

    async def main() -> None:
        with pool_of(4, 4) as pool:
            order: list[tuple[int, str]] = []

            def note(number: int) -> None:
                order.append((number, name()))

            lease = pool.lease()
            futures = [lease.submit(partial(note, n)) for n in range(50)]
            await asyncio.gather(*map(asyncio.wrap_future, futures))
            assert [number for number, _ in order] == list(range(50))
            assert len({name for _, name in order}) == 1
            lease.end()

    run(main)


@pytest.mark.parametrize("inside", [True, False])
def test_a_released_thread_serves_others_before_the_request_has_ended(
    inside: bool,
) -> None:
    """A pool that knows only the request's end makes each response wait for a client."""

    async def main() -> None:
        with pool_of(1, 1) as pool:
            lease, other = pool.lease(), pool.lease()
            lease_module.current.set(lease)

            def hop() -> str:
                if inside:
                    lease.release()
                return name()

            served_by = await called(lease, hop)
            if not inside:
                release()
            assert await called(other, name) == served_by
            other.end()
            # And again, exclusively as before.
            assert await called(lease, name) == served_by
            third = pool.lease()
            waiting = third.submit(name)
            assert pool.waiting == 1
            lease.end()
            await asyncio.wrap_future(waiting)
            third.end()

    run(main)


def test_release_without_a_lease_does_nothing() -> None:
    release()


def test_release_waits_for_the_calls_that_are_queued() -> None:
    """Freeing the thread at once would run them on it together with another request's."""

    async def main() -> None:
        with pool_of(2, 2) as pool:
            gate = threading.Event()
            lease = pool.lease()
            lease.submit(gate.wait, TIMEOUT)
            queued = lease.submit(name)
            lease.release()
            other = pool.lease()
            assert await called(other, name) != (lease.thread and lease.thread.name)
            gate.set()
            await asyncio.wrap_future(queued)
            assert lease.thread is None
            lease.end()
            other.end()

    run(main)


def test_awaiting_requests_do_not_count() -> None:
    """A maximum of threads instead of running ones is used up by a few event streams."""

    async def main() -> None:
        with pool_of(1, 2) as pool:
            streams = [pool.lease() for _ in range(20)]
            for lease in streams:
                await called(lease, name)
            assert pool.threads == 20
            assert pool.running == 0
            other = pool.lease()
            await called(other, name)
            other.end()
            for lease in streams:
                lease.end()
            await eventually(lambda: pool.threads == 2, "what exceeds MAX ends")

    run(main)


def test_no_more_than_the_maximum_run() -> None:
    """With threads that are only counted when idle, awaiting requests come back at once."""
    most = 3

    async def main() -> None:
        with pool_of(1, most) as pool:
            running, seen, lock = 0, 0, threading.Lock()
            gate, bound = threading.Event(), asyncio.Barrier(12)

            def work() -> None:
                nonlocal running, seen
                with lock:
                    running += 1
                    seen = max(seen, running)
                gate.wait(0.005)
                with lock:
                    running -= 1

            async def request() -> None:
                lease = pool.lease()
                await called(lease, work)
                await bound.wait()
                await called(lease, work)
                lease.end()

            await asyncio.gather(*[request() for _ in range(12)])
            assert seen <= most

    run(main)


def test_an_abandoned_call_keeps_its_thread_until_it_is_over() -> None:
    """A pool that counts leases would hand out a thread that still works."""

    async def main() -> None:
        with pool_of(1, 1) as pool:
            gate, entered = threading.Event(), threading.Event()

            def work() -> None:
                entered.set()
                gate.wait(TIMEOUT)

            lease = pool.lease()
            task = asyncio.create_task(called(lease, work))
            await eventually(entered.is_set, "it runs")
            task.cancel()
            await asyncio.wait({task})
            lease.end()
            assert (pool.leases, pool.running) == (0, 1)
            other = pool.lease()
            waiting = other.submit(name)
            assert pool.waiting == 1
            gate.set()
            await asyncio.wrap_future(waiting)
            other.end()

    run(main)


def test_a_cancelled_call_that_waits_never_runs() -> None:
    async def main() -> None:
        with pool_of(1, 1) as pool:
            gate, ran = threading.Event(), threading.Event()
            lease, other = pool.lease(), pool.lease()
            running = lease.submit(gate.wait, TIMEOUT)
            queued, waiting = lease.submit(ran.set), other.submit(ran.set)
            await eventually(running.running, "it runs")
            assert queued.cancel()
            assert waiting.cancel()
            assert not running.cancel()
            await eventually(lambda: pool.waiting == 0, "it waits for nothing any more")
            gate.set()
            assert await called(lease, name)
            lease.end()
            other.end()
            assert not ran.is_set()

    run(main)


def test_the_thread_that_became_idle_last_is_first() -> None:
    """In turn, all of them stay awake, with cold caches and a connection each."""

    async def main() -> None:
        with pool_of(4, 4) as pool:
            barrier = threading.Barrier(4)
            leases = [pool.lease() for _ in range(4)]
            await asyncio.gather(*[called(each, barrier.wait) for each in leases])
            last = leases[2].thread
            for each in (leases[0], leases[1], leases[3], leases[2]):
                each.end()
            for _ in range(5):
                lease = pool.lease()
                await called(lease, name)
                assert lease.thread is last
                lease.end()

    run(main)


def test_idle_threads_end_down_to_the_minimum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread, "IDLE", 0.05)

    async def main() -> None:
        with pool_of(2, 5) as pool:
            barrier = threading.Barrier(5)
            leases = [pool.lease() for _ in range(5)]
            await asyncio.gather(*[called(each, barrier.wait) for each in leases])
            for each in leases:
                each.end()
            await eventually(lambda: pool.threads == 2, "two are left")
            await asyncio.sleep(0.2)
            assert pool.threads == 2
            lease = pool.lease()
            await called(lease, name)
            lease.end()

    run(main)


def test_synchronous_code_that_waits_for_the_event_loop_does_not_count() -> None:
    """At the maximum it would wait for ever, where Django has a thread for each request."""

    async def main() -> None:
        with pool_of(1, 2) as pool:

            async def request(inner: Callable[[], Awaitable[object]]) -> None:
                lease = pool.lease()
                await ThreadSensitiveContext(executor=lease).__aenter__()
                await sync_to_async(async_to_sync(inner))()
                lease.end()

            async def nested() -> None:
                await asyncio.create_task(request(partial(asyncio.sleep, 0)))

            await asyncio.gather(
                *[asyncio.create_task(request(nested)) for _ in range(4)]
            )

    run(main)


# After the end


def test_calls_after_the_end_get_a_thread_that_ends_with_their_task() -> None:
    """A lease that just ends breaks tasks that outlive their request; one that binds to
    any thread shows them what other requests have left in it."""
    local = threading.local()

    async def main() -> None:
        with pool_of(1, 1) as pool:
            lease = pool.lease()
            await called(lease, setattr, local, "tenant", "of a request")
            lease.end()
            other = pool.lease()
            await called(other, name)

            async def late() -> None:
                assert not await called(lease, hasattr, local, "tenant")
                await called(lease, setattr, local, "tenant", "its own")
                await asyncio.sleep(0.01)
                assert await called(lease, getattr, local, "tenant") == "its own"
                assert pool.threads == 2

            await asyncio.create_task(late())
            await eventually(lambda: pool.threads == 1, "it has ended")
            other.end()

    run(main)


def test_many_late_tasks_of_one_request_share_its_thread() -> None:
    async def main() -> None:
        with pool_of(1, 1) as pool:
            lease = pool.lease()
            lease.end()
            names = await asyncio.gather(
                *[asyncio.create_task(called(lease, name)) for _ in range(5)]
            )
            assert len(set(names)) == 1
            await eventually(lambda: pool.threads == 0, "it has ended")

    run(main)


# Websocket connections


def test_a_connection_has_a_thread_only_while_it_calls() -> None:
    """Exclusive until the end, every open connection holds a thread."""

    async def main() -> None:
        with pool_of(1, 4, exclusive=False) as pool:
            leases = [pool.lease() for _ in range(50)]
            for _ in range(2):
                for lease in leases:
                    await called(lease, name)
            assert pool.threads == 1
            for lease in leases:
                lease.end()

    run(main)


def test_an_unfinished_generator_keeps_the_thread_of_its_connection() -> None:
    """`async for` over a queryset reads one open cursor, a chunk a call."""

    def rows() -> Iterator[str]:
        for _ in range(3):
            yield name()

    async def main() -> None:
        with pool_of(1, 4, exclusive=False) as pool:
            lease, other = pool.lease(), pool.lease()
            await ThreadSensitiveContext(executor=lease).__aenter__()
            chunk = sync_to_async(lambda generator: next(generator, None))
            generator = rows()
            mine = await chunk(generator)
            for _ in range(2):
                assert await called(other, name) != mine
                assert await chunk(generator) == mine
            assert bound(lease)
            assert await chunk(generator) is None
            assert not bound(lease)

            generator = rows()
            await chunk(generator)
            assert bound(lease)
            del generator  # as `break` does
            await eventually(lambda: not bound(lease), "nobody reads on")
            lease.end()
            other.end()

    run(main)


# As with the standard executor


def test_results_exceptions_and_arguments() -> None:
    async def main() -> None:
        with pool_of(1, 1) as pool:
            lease = pool.lease()
            assert await called(lease, lambda a, b=1: (a, b), 2) == (2, 1)
            assert lease.submit(dict, a=1).result(TIMEOUT) == {"a": 1}
            for error in (ValueError, KeyboardInterrupt, SystemExit):

                def fail(error: type[BaseException] = error) -> None:
                    raise error("message")

                future: Future[None] = lease.submit(fail)
                assert type(future.exception(TIMEOUT)) is error
            assert list(lease.map(str, [1, 2])) == ["1", "2"]
            lease.shutdown()
            assert pool.leases == 0

    run(main)


class Thing:
    """Something that can be referred to weakly."""


def test_an_idle_thread_keeps_nothing_of_a_request_alive() -> None:
    """Also not through the exception of its last call, whose frames refer to it."""

    async def main() -> None:
        with pool_of(1, 1) as pool:
            for function in (str, partial(divmod, 0)):
                lease = pool.lease()
                thing = Thing()
                future = lease.submit(function, thing)
                future.exception(TIMEOUT)
                lease.end()
                gone = weakref.ref(thing)
                del thing, future, lease
                await eventually(lambda gone=gone: collected(gone), "it is gone")  # type: ignore[misc]

    run(main)


def collected(reference: weakref.ref[Thing]) -> bool:
    gc.collect()
    return reference() is None


def test_calls_are_refused_once_it_is_closed() -> None:
    async def main() -> None:
        pool = Pool(1, 1)
        lease, other = pool.lease(), pool.lease()
        gate = threading.Event()
        running, queued = lease.submit(gate.wait, TIMEOUT), lease.submit(name)
        waiting = other.submit(name)
        pool.stop()
        assert not pool.join(0.01)
        with pytest.raises(RuntimeError, match="after shutdown"):
            lease.submit(name)
        gate.set()
        assert pool.join(TIMEOUT)
        # What was taken has run.
        assert running.done()
        assert queued.done()
        assert waiting.done()
        assert pool.threads == 0

    run(main)


def test_no_thread_can_be_made(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first is an error, as with the standard executor; without more it goes on."""

    async def main() -> None:
        with pool_of(1, 4) as pool:

            def start(_thread: object) -> None:
                raise RuntimeError("can't start new thread")

            with monkeypatch.context() as patch:
                patch.setattr(PoolThread, "start", start)
                lease = pool.lease()
                with pytest.raises(RuntimeError, match="can't start"):
                    lease.submit(name)
            await called(lease, name)
            with monkeypatch.context() as patch:
                patch.setattr(PoolThread, "start", start)
                other = pool.lease()
                waiting = other.submit(name)
                await asyncio.sleep(0.1)
                assert not waiting.done()
                [warning] = caplog.messages
                assert warning == "can't start new thread: 1 are there already"
                lease.end()
                await asyncio.wrap_future(waiting)
                other.end()

    run(main)


def script(code: str) -> str:
    """The output of a program; it must end by itself, and well."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.mark.parametrize("executor", ["ThreadPoolExecutor(1)", "pool.lease()"])
def test_interpreter_shutdown(executor: str) -> None:
    """Threads that nothing ends would keep the interpreter from ending; those that are
    killed with it would lose what was queued."""
    code = f"""
import asyncio, threading
from concurrent.futures import ThreadPoolExecutor
from djasgi.threads import Pool

pool = Pool(1, 4)
entered, gate = threading.Event(), threading.Event()

def work():
    entered.set()
    gate.wait(0.2)
    print("worked")

async def main():
    executor = {executor}
    executor.submit(work)
    executor.submit(print, "queued")
    entered.wait()

asyncio.run(main())
print("end")
"""
    assert script(code) == "end\nworked\nqueued\n"


def test_fork() -> None:
    """The threads stay behind: a pool that still counts them waits for them for ever."""
    code = """
import asyncio, os, threading, warnings
from asgiref.sync import ThreadSensitiveContext, sync_to_async
from djasgi.threads import Pool

warnings.simplefilter("ignore", DeprecationWarning)  # fork() with threads
pool = Pool(1, 1)

def in_child():
    assert pool.threads == 0
    async def main():
        # The context is that of the call that has forked: its lease, too.
        assert await sync_to_async(str)("works") == "works"
        lease = pool.lease()
        assert await asyncio.wrap_future(lease.submit(str, "too")) == "too"
        assert pool.leases == 1
        lease.end()
    asyncio.run(main())
    pool.stop()
    assert pool.join(10)

def fork():
    pid = os.fork()
    if pid == 0:
        try:
            in_child()
            os.write(1, b"child\\n")
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

async def main():
    lease = pool.lease()
    await ThreadSensitiveContext(executor=lease).__aenter__()
    print("parent", await sync_to_async(fork)())
    print("parent", await sync_to_async(str)("goes on"), pool.threads)
    lease.end()

asyncio.run(main())
"""
    assert script(code) == "child\nparent 0\nparent goes on 1\n"


def test_no_thread_is_started_before_there_is_a_call() -> None:
    """A thread made before the fork is not there after it."""
    before = threading.active_count()
    threads = Threads(4, 4)
    assert threading.active_count() == before
    assert threads.threads == threads.leases == threads.waiting == 0
    assert threads.close(1)


@pytest.mark.parametrize(("least", "most"), [(2, 1), (-1, 1), (0, 0)])
def test_numbers_of_threads_that_make_no_sense(least: int, most: int) -> None:
    with pytest.raises(ValueError, match="numbers of threads"):
        Pool(least, most)


# The layer


def test_context_variables_and_locals_end_with_their_request() -> None:
    """A context entered once and for all would show the next request the last one's."""
    variable: ContextVar[int | None] = ContextVar("variable", default=None)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        def view() -> None:
            assert variable.get() is None
            variable.set(scope["number"])

        await sync_to_async(view)()
        async with ThreadSensitiveContext():  # as Django's handler
            await sync_to_async(lambda: None)()
        assert variable.get() == scope["number"]

    async def main() -> None:
        threads = Threads(1, 2)
        layer: Any = with_lease(application, threads)
        for number in range(20):
            scope = {"type": "http", "number": number}
            await asyncio.create_task(layer(scope, None, None))
            assert threads.leases == 0
        assert threads.threads == 1
        assert threads.close(TIMEOUT)

    run(main)


def test_requests_and_connections_have_no_thread_in_common() -> None:
    """What a request leaves in a thread, no middleware clears for a consumer."""
    local = threading.local()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await sync_to_async(setattr)(local, "left", scope["type"])
        for _ in range(3):
            assert await sync_to_async(getattr)(local, "left") == scope["type"]

    async def main() -> None:
        threads = Threads(1, 1)
        layer: Any = with_lease(application, threads)
        for kind in ("http", "websocket") * 5:
            await asyncio.create_task(layer({"type": kind}, None, None))
        assert threads.threads == 2
        assert threads.close(TIMEOUT)

    run(main)


def test_pipelined_requests_do_not_refer_to_those_before() -> None:
    """Each token of a context variable refers to the value before it."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await sync_to_async(name)()

    async def main() -> None:
        threads = Threads(1, 1)
        layer: Any = with_lease(application, threads)
        leases = []
        for _ in range(3):
            await layer({"type": "http"}, None, None)
            leases.append(weakref.ref(lease_module.current.get()))
        gc.collect()
        assert [lease() is None for lease in leases] == [True, True, False]
        assert threads.close(TIMEOUT)

    run(main)


# Growth, with clocks and threads in the hands of the test


class Timer:
    """An event loop whose timers the test fires."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []
        self.soon: list[Callable[[], None]] = []

    def call_later(self, _: float, callback: Callable[[], None], **__: object) -> None:
        self.due.append(callback)

    def call_soon(self, callback: Callable[..., None], *args: Any, **_: object) -> None:
        self.soon.append(partial(callback, *args))

    def rounds(self, number: int) -> None:
        """Let the event loop go round so often."""
        for _ in range(number):
            soon, self.soon = self.soon, []
            for callback in soon:
                callback()

    def call_soon_threadsafe(self, callback: Callable[..., None], *args: Any) -> None:
        callback(*args)


class Board(Pool):
    """A pool whose threads do nothing by themselves: the test moves them."""

    def __init__(self, minimum: int, maximum: int, **more: Any) -> None:
        self.now = self.used = 0.0
        super().__init__(
            minimum,
            maximum,
            clock=lambda: self.now,
            cpu=lambda: self.used,
            **more,
        )
        self.timer = Timer()
        self._loop = self.timer  # type: ignore[assignment]
        self._loop_thread = threading.get_ident()

    def lease(self) -> Lease:
        self.leases += 1
        return Lease(self)

    def _new_thread(self, *, own: bool = False) -> PoolThread:
        self._numbers += 1
        made = PoolThread(self, str(self._numbers), own=own)
        (self._own if own else self._threads).add(made)
        return made

    @property
    def all_threads(self) -> list[PoolThread]:
        return sorted(self._threads | self._own, key=lambda each: int(each.name))

    def pass_time(self, seconds: float, *, load: float, rounds: int = ROUNDS) -> None:
        """Let time pass in ticks, with that many cores in use, and rounds a tick."""
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            self.used += TICK * load
            due, self.timer.due = self.timer.due, []
            for callback in due:
                callback()
            self.timer.rounds(rounds)

    def step(self, each: PoolThread) -> None:
        """Run the next call of a thread, or end it."""
        call = each.queue.get_nowait()
        if call is None:
            self.gone(each)
        else:
            each._run(call)

    def settle(self) -> None:
        while ready := [each for each in self.all_threads if not each.queue.empty()]:
            self.step(ready[0])


def test_threads_are_added_while_they_block() -> None:
    board = Board(1, 4)
    futures = [board.lease().submit(name) for _ in range(10)]
    assert (board.threads, board.waiting) == (1, 9)
    board.pass_time(2 * TICK, load=0.1)
    assert board.threads == 2
    board.pass_time(10 * TICK, load=0.1)
    assert (board.threads, board.waiting) == (4, 6)
    assert not any(future.done() for future in futures)


def test_threads_are_stuck_while_calls_wait_and_none_ends() -> None:
    board = Board(1, 2)
    leases = [board.lease() for _ in range(4)]
    first, _, _, last = [lease.submit(name) for lease in leases]
    board.pass_time(1, load=0.1)
    assert board.waiting == 2
    assert board.stuck() == pytest.approx(1)

    board.step(board.all_threads[0])
    assert first.done()
    leases[0].end()
    assert board.waiting == 1
    assert board.stuck() == 0
    board.pass_time(2, load=0.1)
    assert board.stuck() == pytest.approx(2)

    last.cancel()
    assert board.stuck() == 0
    assert board.waiting == 0


def test_a_call_that_has_not_waited_long_is_no_sign_of_stuck_threads() -> None:
    board = Board(1, 1)
    board.lease().submit(name)
    board.pass_time(5, load=0.1)
    assert board.stuck() == 0
    waiting = board.lease().submit(name)
    board.pass_time(1, load=0.1)
    assert board.stuck() == pytest.approx(1)
    waiting.cancel()
    assert board.stuck() == 0


def test_threads_are_not_added_while_they_compute() -> None:
    """Whoever adds them whenever work waits gets threads that fight for one lock."""
    board = Board(1, 16)
    leases = [board.lease() for _ in range(32)]
    futures = [lease.submit(name) for lease in leases]
    for _ in range(31):
        board.pass_time(2 * TICK, load=1.0)
        [running] = board.all_threads
        lease = running.lease
        assert lease is not None
        board.step(running)
        lease.end()
    assert board.threads == 1
    assert sum(future.done() for future in futures) == 31


def test_computing_for_long_does_not_shut_others_out() -> None:
    """By the processor time alone, one view that computes for seconds stops all others."""
    board = Board(1, 2)
    for _ in range(2):
        board.lease().submit(name)
    board.pass_time(0.04, load=1.0)
    assert board.threads == 1
    board.pass_time(0.02, load=1.0)
    assert board.threads == 2


def test_a_pause_of_the_event_loop_is_no_sign_of_idleness() -> None:
    """A process that another one keeps from running has used little time as well."""
    board = Board(1, 16)
    for _ in range(2):
        board.lease().submit(name)
    for _ in range(8):
        board.now += 4 * TICK
        board._last_bound = board.now
        [due] = board.timer.due
        board.timer.due = []
        due()
    assert board.threads == 1


def test_nothing_ticks_without_a_backlog() -> None:
    board = Board(1, 2)
    lease = board.lease()
    lease.submit(name)
    assert not board.timer.due
    board.lease().submit(name)
    assert len(board.timer.due) == 1
    board.settle()
    lease.end()
    board.settle()
    board.pass_time(TICK, load=0)
    assert board.waiting == 0
    assert not board.timer.due


def test_the_minimum_is_there_at_once_and_no_more() -> None:
    board = Board(3, 8)
    for _ in range(6):
        board.lease().submit(name)
    assert (board.threads, board.waiting) == (3, 3)


def test_a_request_between_two_calls_is_not_taken_for_an_awaiting_one() -> None:
    """A thread more for it each time: above the maximum, and a database connection."""
    board = Board(2, 2)
    leases = [board.lease() for _ in range(2)]
    for lease in leases:
        lease.submit(name)
    board.step(board.all_threads[0])
    waiting = board.lease().submit(name)
    # Long ago, but the event loop has hardly gone round since.
    board.pass_time(16 * TICK, load=0, rounds=1)
    assert board.threads == 2
    board.timer.rounds(ROUNDS)
    assert board.threads == 3
    board.settle()
    assert waiting.done()


class PoolMachine(RuleBasedStateMachine):
    """Random histories of a pool, against what must hold at every moment."""

    exclusive = True

    def __init__(self) -> None:
        super().__init__()
        self.board = Board(1, 2, exclusive=self.exclusive)
        self.leases: list[Lease] = []
        self.futures: dict[Lease, list[Future[object]]] = {}
        self.ran: dict[Lease, list[int]] = {}
        self.on: dict[Lease, list[str]] = {}

    def pick(self, number: int) -> Lease:
        return self.leases[number % len(self.leases)]

    @rule()
    def opened(self) -> None:
        lease = self.board.lease()
        self.leases.append(lease)
        self.futures[lease], self.ran[lease], self.on[lease] = [], [], []

    @precondition(lambda self: self.leases)
    @rule(number=st.integers(0, 50))
    def submitted(self, number: int) -> None:
        lease = self.pick(number)
        count = len(self.futures[lease])

        def work() -> None:
            bound = lease.thread
            assert bound is not None
            assert bound.lease is lease
            self.ran[lease].append(count)
            self.on[lease].append(bound.name)

        self.futures[lease].append(lease.submit(work))

    @precondition(lambda self: self.leases)
    @rule(number=st.integers(0, 50), call=st.integers(0, 10))
    def cancelled(self, number: int, call: int) -> None:
        if futures := self.futures[self.pick(number)]:
            futures[call % len(futures)].cancel()

    @precondition(lambda self: self.leases)
    @rule(number=st.integers(0, 50))
    def ended(self, number: int) -> None:
        lease = self.pick(number)
        lease.end()

    @precondition(lambda self: self.leases)
    @rule(number=st.integers(0, 50))
    def released(self, number: int) -> None:
        lease = self.pick(number)
        lease.release()
        # Another thread is allowed from here.
        if not lease.busy:
            self.on[lease].clear()

    @rule(number=st.integers(0, 20))
    def stepped(self, number: int) -> None:
        ready = [each for each in self.board.all_threads if not each.queue.empty()]
        if ready:
            each = ready[number % len(ready)]
            lease = each.lease
            freed = lease is not None and lease.released
            self.board.step(each)
            if lease is not None and (freed or lease.thread is None):
                self.on[lease].clear()

    @rule(ticks=st.integers(1, 15), load=st.sampled_from([0.0, 0.4, 0.9]))
    def passed(self, ticks: int, load: float) -> None:
        self.board.pass_time(ticks * TICK, load=load)

    @rule(number=st.integers(0, 20))
    def expired(self, number: int) -> None:
        if threads := self.board.all_threads:
            each = threads[number % len(threads)]
            if self.board.expire(each):
                each.queue.put(None)

    @invariant()
    def limits(self) -> None:
        board = self.board
        assert 0 <= board.running <= board.maximum
        assert len(board._idle) + board.running <= board.maximum
        if board._idle and board.running < board.maximum:
            assert board.waiting == 0, "a thread is idle and work waits"

    @invariant()
    def one_thread(self) -> None:
        for lease, names in self.on.items():
            if self.exclusive and not lease.ended:
                assert len(set(names)) <= 1, f"more than one thread: {names}"

    @invariant()
    def bound_once(self) -> None:
        bound = [each.lease for each in self.board.all_threads if each.lease]
        assert len(bound) == len(set(bound))
        for each in self.board.all_threads:
            assert each.lease is None or each.lease.thread is each
            assert each.queue.qsize() <= 1

    @invariant()
    def in_order(self) -> None:
        for ran in self.ran.values():
            assert ran == sorted(ran)

    def teardown(self) -> None:
        """Nothing is lost, and nothing is left."""
        for _ in range(10 * len(self.leases) + 10):
            self.board.settle()
            for lease in self.leases:
                lease.end()
            self.board.pass_time(30 * TICK, load=0)
        self.board.settle()
        for lease, futures in self.futures.items():
            assert all(future.done() for future in futures), lease.calls
            finished = [n for n, f in enumerate(futures) if not f.cancelled()]
            assert self.ran[lease] == finished
            for future in futures:
                if not future.cancelled():
                    future.result(0)
        board = self.board
        assert (board.leases, board.waiting, board.running) == (0, 0, 0)
        assert len(board._idle) == board.threads <= board.maximum
        board.stop()
        board.settle()
        assert board.threads == 0


class ConnectionMachine(PoolMachine):
    exclusive = False


for machine in (PoolMachine, ConnectionMachine):
    machine.TestCase.settings = settings(
        max_examples=60, stateful_step_count=60, deadline=None
    )
TestPool = PoolMachine.TestCase
TestConnectionPool = ConnectionMachine.TestCase
