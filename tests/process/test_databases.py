"""Database connections belong to threads: how many there are, and when they end."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from djasgi.options import SERVERS
from tests.support.leased import ROWS, at_once, leased, open_files
from tests.support.postgres import MISSING, PROGRAMS, Postgres, postgres
from tests.support.process import until
from tests.support.server import Gate, Server, answer, send

Start = Callable[..., Server]

numbers = itertools.count(1)

pytestmark = pytest.mark.skipif(PROGRAMS is None, reason=MISSING)


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


class Project:
    """The project with a database of its own on PostgreSQL."""

    def __init__(self, path: Path, database: Postgres) -> None:
        self.path = path
        self.database = database
        self.name = f"leased{next(numbers)}"
        self.settings = database.create(self.name)

    def server(self, *arguments: str, settings: dict[str, Any], **env: str) -> Server:
        variables = {"DATABASE": json.dumps(self.settings | settings)} | env
        return Server(self.path, "--no-access-log", *arguments, env=variables)

    @property
    def clients(self) -> list[int]:
        return self.database.clients(self.name)

    @contextmanager
    def watched(self) -> Iterator[list[int]]:
        """How many connections there were, again and again."""
        counts: list[int] = []
        end = threading.Event()

        def watch() -> None:
            while not end.wait(0.01):
                counts.append(len(self.clients))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield counts
        finally:
            end.set()
            watcher.join()


@pytest.fixture
def project(tmp_path: Path, database: Postgres) -> Project:
    return Project(leased(tmp_path), database)


def get(server: Server, path: str) -> str:
    response, text = server.get(path)
    assert response.status == 200, text
    return text


@pytest.mark.parametrize("name", SERVERS)
def test_synchronous_views_have_no_more_connections_than_threads(
    project: Project, name: str
) -> None:
    """And they persist. A thread for each request has a connection for each, and leaks
    it with CONN_MAX_AGE: nobody comes back to close it."""
    threads, workers = 3, 2
    options = ("--server", name, "--workers", str(workers), "--threads", f"1:{threads}")
    with project.server(*options, settings={"CONN_MAX_AGE": 600}) as server:
        server.ready()
        with project.watched() as counts:
            served = at_once(16, [partial(get, server, "/backend/")] * 150)

        assert 0 < max(counts) <= threads * workers
        assert len(set(served)) <= threads * workers
        # They are still the same ones.
        assert set(project.clients) <= {int(pid) for pid in served}
        assert get(server, "/backend/") in served
        assert server.stop() == 0
    assert dropped(project) == []


def dropped(project: Project) -> list[str]:
    """The connections that ended without having been closed."""
    until(lambda: not project.clients, "all connections have ended")
    lines = project.database.log.read_text().splitlines()
    mine = [line for line in lines if line.startswith(f"{project.name}:")]
    return [line for line in mine if "unexpected EOF" in line]


def test_without_max_age_none_is_left_after_the_request(project: Project) -> None:
    settings = {"CONN_MAX_AGE": 0}
    with project.server("--threads", "1:4", settings=settings) as server:
        server.ready()
        at_once(8, [partial(get, server, "/backend/")] * 40)
        until(lambda: not project.clients, "each request has closed its own")
        assert server.stop() == 0


def test_connections_are_closed_when_their_age_is_reached(project: Project) -> None:
    with project.server("--threads", "1", settings={"CONN_MAX_AGE": 1}) as server:
        server.ready()
        first = get(server, "/backend/")
        until(lambda: get(server, "/backend/") != first, "another connection")
        assert len(project.clients) <= 1
        assert server.stop() == 0


@pytest.mark.parametrize("cut", ["terminated", "restarted"])
def test_health_checks_notice_that_a_connection_is_gone(
    project: Project, cut: str
) -> None:
    settings = {"CONN_MAX_AGE": 600, "CONN_HEALTH_CHECKS": True}
    with project.server("--threads", "2", settings=settings) as server:
        server.ready()
        at_once(4, [partial(get, server, "/backend/")] * 8)
        before = project.clients
        cut_off(project, cut)
        for _ in range(6):
            assert int(get(server, "/backend/")) not in before
        assert server.stop() == 0


def cut_off(project: Project, how: str) -> None:
    if how == "restarted":
        project.database.restart()
    else:
        for pid in project.clients:
            project.database.execute("SELECT pg_terminate_backend(%s)", pid)


def test_without_health_checks_a_thread_heals_after_one_error(project: Project) -> None:
    """As on WSGI: the request that meets the dead connection fails, the next is fine."""
    settings = {"CONN_MAX_AGE": 600}
    with project.server("--threads", "1", settings=settings) as server:
        server.ready()
        get(server, "/backend/")
        cut_off(project, "restarted")
        assert server.get("/backend/")[0].status == 500
        get(server, "/backend/")
        assert len(project.clients) == 1
        assert server.stop() == 0


@pytest.mark.parametrize("threads", ["0", "1:2"])
def test_asynchronous_views_have_no_more_connections_than_on_django(
    project: Project, threads: str
) -> None:
    """One for each request under way; and those of the threads that retire are closed."""
    settings = {"CONN_MAX_AGE": 600 if threads != "0" else 0}
    with Gate() as gate, ExitStack() as stack:
        server = stack.enter_context(
            project.server("--threads", threads, settings=settings, **gate.variables)
        ).ready()
        socks = [stack.enter_context(server.connect()) for _ in range(8)]
        for sock in socks:
            send(sock, "/held/")
            gate.arrived()
        assert len(project.clients) == len(socks)
        gate.open()
        for sock in socks:
            assert answer(sock)[1] == "held"
        most = int(threads[-1])
        until(lambda: len(project.clients) <= most, "those too many are closed")
        assert server.stop() == 0
    if threads != "0":
        assert dropped(project) == []


def test_pools_of_psycopg(project: Project) -> None:
    settings = {"OPTIONS": {"pool": {"min_size": 1, "max_size": 2, "timeout": 30}}}
    with project.server("--threads", "1:6", settings=settings) as server:
        server.ready()
        with project.watched() as counts:
            at_once(12, [partial(get, server, "/backend/")] * 60)
            at_once(6, [partial(get, server, "/rows/")] * 12)
        assert 0 < max(counts) <= 2
        assert server.stop() == 0


def test_tasks_after_the_response_leave_no_connection(project: Project) -> None:
    with Gate() as gate:
        settings = {"CONN_MAX_AGE": 600}
        options = ("--threads", "1")
        with project.server(*options, settings=settings, **gate.variables) as server:
            server.ready()
            get(server, "/late/")
            gate.arrived()
            gate.open()
            server.wait_for(f"^late: {ROWS} {ROWS} False$")
            until(lambda: len(project.clients) <= 1, "that of the task is closed")
            assert server.stop() == 0
    assert dropped(project) == []


def test_connections_of_sqlite(tmp_path: Path) -> None:
    path = leased(tmp_path)
    env = {"DATABASE": json.dumps({"CONN_MAX_AGE": 600})}
    with Server(path, "--threads", "1:3", "--no-access-log", env=env) as server:
        server.ready()
        at_once(12, [partial(get, server, "/count/")] * 60)
        pid = json.loads(get(server, "/state/"))["pid"]
        opened = open_files(pid).count(str(path / "db.sqlite3"))
        assert opened <= 3
        assert server.stop() == 0
