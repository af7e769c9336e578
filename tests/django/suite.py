"""Run labels of Django's own test suite, and write down the result of each test.

    python suite.py SOURCE RESULT.json HANDLER CLIENT LABEL ...

HANDLER is `django`, or `djasgi` to put its handler wherever Django makes one: its own
ASGIHandler (which ASGIStaticFilesHandler derives from) and the handler of AsyncClient.
CLIENT is `async` to send the requests of the synchronous test client, which are nearly
all, through asynchronous middleware too, with either handler; else `sync`.
"""

from __future__ import annotations

import collections
import gc
import json
import os
import re
import runpy
import sys
import unittest
import warnings
from pathlib import Path
from typing import Any

OUTCOMES = (
    "addSuccess",
    "addError",
    "addFailure",
    "addSkip",
    "addExpectedFailure",
    "addUnexpectedSuccess",
)


def put_in_place() -> None:
    """The handler of djasgi instead of Django's."""
    import django.core.asgi
    import django.core.handlers.asgi
    import django.test.client

    from djasgi import handler
    from djasgi.handler.chain import FusedMiddleware
    from djasgi.layers.requests import Exchange, Requests
    from djasgi.threads import Threads
    from djasgi.threads.leases import Leases

    # Types are not to be assigned to, says the type checker.
    entry: Any = django.core.asgi
    asgi: Any = django.core.handlers.asgi
    client: Any = django.test.client
    leases = Leases(Threads(1, 16))
    nothing: Any = None
    requests = Requests(nothing)

    class ASGIHandler(handler.ASGIHandler):
        """As below a server: with leases, and a `receive` that can be watched."""

        @property  # type: ignore[misc]  # object says that it can be set
        def __class__(self) -> Any:
            return asgi_handler if type(self) is ASGIHandler else type(self)

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            exchange = Exchange(requests, scope, receive, send)
            lease = leases.begin(scope["type"])
            try:
                await super().__call__(scope, exchange.receive, send)
            finally:
                lease.end()

    asgi_handler = asgi.ASGIHandler
    asgi.ASGIHandler = entry.ASGIHandler = ASGIHandler

    class AsyncClientHandler(FusedMiddleware, client.AsyncClientHandler):  # type: ignore[misc]
        @property  # type: ignore[misc]  # object says that it can be set
        def __class__(self) -> Any:
            return client_handler

    client_handler = client.AsyncClientHandler
    client.AsyncClientHandler = AsyncClientHandler


def go_through_async_middleware(*bases: type) -> None:
    """Let `Client` use an asynchronous chain, which one of `bases` may make."""
    import django.test.client
    from asgiref.sync import async_to_sync

    client: Any = django.test.client

    class ClientHandler(*bases, client.ClientHandler):  # type: ignore[misc]
        def load_middleware(self, is_async: bool = False) -> None:
            super().load_middleware(is_async=True)

        def get_response(self, request: Any) -> Any:
            return async_to_sync(self.get_response_async)(request)

        @property  # type: ignore[misc]  # object says that it can be set
        def __class__(self) -> Any:
            return client_handler

    client_handler = client.ClientHandler
    client.ClientHandler = ClientHandler


def record(results: dict[str, str]) -> None:
    """Note the outcome of each test in `results`."""

    def noting(name: str) -> Any:
        original = getattr(unittest.TextTestResult, name)

        def add(self: Any, test: Any, *arguments: Any) -> None:
            results[test.id()] = name.removeprefix("add")
            original(self, test, *arguments)

        return add

    result: Any = unittest.TextTestResult
    for name in OUTCOMES:
        setattr(result, name, noting(name))

    original = result.addSubTest

    def add_subtest(self: Any, test: Any, subtest: Any, error: Any) -> None:
        if error is not None:
            results[subtest.id()] = "SubTestFailed"
        original(self, test, subtest, error)

    result.addSubTest = add_subtest


def count_warnings(found: collections.Counter[str]) -> None:
    """Count the ResourceWarnings: errors for the suite, which nobody sees in `__del__`."""
    original = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, ResourceWarning):
            text = re.sub(r"0x[0-9a-f]+|\d+", "N", str(unraisable.exc_value))
            found[re.sub(r"'/[^']*'", "PATH", text)] += 1
        original(unraisable)

    sys.unraisablehook = hook


def main() -> None:
    source, result, handler, client, *labels = sys.argv[1:]
    tests = Path(source) / "tests"
    os.chdir(tests)
    sys.path[:0] = [str(tests), source]
    results: dict[str, str] = {}
    found: collections.Counter[str] = collections.Counter()
    record(results)
    count_warnings(found)
    if handler == "djasgi":
        put_in_place()
    if client == "async":
        if handler == "djasgi":
            from djasgi.handler.chain import FusedMiddleware

            go_through_async_middleware(FusedMiddleware)
        else:
            go_through_async_middleware()
    sys.argv = ["runtests.py", "--parallel=1", "--verbosity=0", *labels]
    try:
        runpy.run_path(str(tests / "runtests.py"), run_name="__main__")
    except SystemExit:
        pass
    finally:
        warnings.simplefilter("error", ResourceWarning)
        gc.collect()
        text = json.dumps({"results": results, "warnings": found}, indent=1)
        Path(result).write_text(text)


if __name__ == "__main__":
    main()
