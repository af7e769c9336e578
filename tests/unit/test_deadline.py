"""A time limit that is set anew for each request."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

from djasgi.servers.engines.deadline import Deadline

request: ContextVar[str] = ContextVar("request", default="none")


def test_runs_when_the_time_last_set_is_over_and_knows_no_request() -> None:
    async def main() -> tuple[float, list[str]]:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        over = asyncio.Event()

        def told() -> None:
            seen.append(request.get())
            over.set()

        deadline = Deadline(told)
        start = loop.time()
        request.set("a request's")
        deadline.set(0.02)
        deadline.set(0.1)
        await over.wait()
        return loop.time() - start, seen

    passed, seen = asyncio.run(main())
    assert passed >= 0.1
    assert seen == ["none"]


def test_earlier_time_is_kept_and_none_is_no_limit() -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        over = asyncio.Event()

        def second() -> None:
            seen.append("second")
            over.set()

        first = Deadline(lambda: seen.append("first"))
        first.set(0.01)
        first.set(None)
        gone = Deadline(lambda: seen.append("gone"))
        gone.set(0.01)
        gone.cancel()
        earlier = Deadline(second)
        earlier.set(60)
        earlier.set(0.05)
        await asyncio.wait_for(over.wait(), 5)
        return seen

    assert asyncio.run(main()) == ["second"]
