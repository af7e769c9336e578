"""What cannot be forked: each case in an interpreter of its own, without our threads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from djasgi.supervisor.unforkable import summary

ROOT = Path(__file__).parents[2]

FOUND = """
import json
from djasgi.supervisor.unforkable import left_since, present, snapshot
import os, select, socket, threading, time
before = present()
{}
print(json.dumps([*left_since(before).values()]), flush=True)
os._exit(0)
"""


def run(code: str, cwd: Path = ROOT) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        timeout=60,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (
            "T = threading.Thread; T(target=time.sleep, args=(9,), name='T').start()",
            ["the thread T"],
        ),
        (
            "import _thread; _thread.start_new_thread(time.sleep, (9,))",
            ["a native thread"],
        ),
        ("p = select.epoll()", ["an open eventpoll descriptor"]),
        (
            "import asyncio; loop = asyncio.new_event_loop()",
            ["a connected unix socket", "an open eventpoll descriptor"],
        ),
        (
            "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()",
            ["a listening socket"],
        ),
        ("s = socket.socketpair()", ["a connected unix socket"] * 2),
        ("s = socket.socket()", []),
        ("s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0))", []),
        ("s = socket.socketpair(type=socket.SOCK_DGRAM)", []),
        ("p = os.pipe()", []),
        ("f = open(os.devnull)", []),
        ("import tempfile; f = tempfile.TemporaryFile('a')", []),
        ("d = os.memfd_create('x')", []),
        ("t = threading.Thread(target=int); t.start(); t.join()", []),
    ],
)
def test_threads_polls_and_streams_are_found_and_the_rest_is_harmless(
    code: str, found: list[str]
) -> None:
    assert sorted(set(run(FOUND.format(code)))) == sorted(set(found))


def test_a_connection_is_named_by_its_peer() -> None:
    code = """
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen()
address = "%s:%d" % s.getsockname()
before = present()
c = socket.create_connection(s.getsockname())
print(json.dumps([*left_since(before).values(), address]))
raise SystemExit
"""
    *found, address = run(FOUND.format(code))

    assert found == [f"a connection to {address}"]


def test_where_there_is_no_proc_nothing_is_found() -> None:
    code = """
from djasgi.supervisor import unforkable
unforkable.TASKS = unforkable.DESCRIPTORS = "/nonexistent"
p = select.epoll()
print(json.dumps(snapshot()))
raise SystemExit
"""
    assert run(FOUND.format(code)) == {}


def test_a_summary_says_each_thing_once_and_no_more_than_three() -> None:
    assert summary({"1": "a thread", "2": "a thread"}) == "a thread"
    assert summary({str(n): f"thread {n}" for n in range(5)}) == (
        "thread 0, thread 1, thread 2 and 2 more"
    )


def test_the_innermost_of_nested_imports_is_blamed(tmp_path: Path) -> None:
    (tmp_path / "outer.py").write_text("import middle\nimport other\n")
    (tmp_path / "middle.py").write_text("import select\nimport inner\n")
    (tmp_path / "inner.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(9,), daemon=True, name='T').start()"
    )
    (tmp_path / "other.py").write_text("import select\np = select.epoll()\n")
    code = f"""
import json, sys
from djasgi.supervisor.unforkable import blamed
from importlib.machinery import SourceFileLoader
before = SourceFileLoader.exec_module
sys.path.insert(0, {str(tmp_path)!r})
modules = {{}}
with blamed(modules):
    import outer
assert SourceFileLoader.exec_module is before, "it is as it was"
print(json.dumps(modules))
"""
    assert run(code) == {
        "the thread T": "inner",
        "an open eventpoll descriptor": "other",
    }


def test_a_module_that_fails_is_blamed_as_well(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(
        "import select\np = select.epoll()\nkeep = [p]\nimport sys\nsys.p = p\n1 / 0\n"
    )
    code = f"""
import json, sys
from djasgi.supervisor.unforkable import blamed
sys.path.insert(0, {str(tmp_path)!r})
modules = {{}}
try:
    with blamed(modules):
        import failing
except ZeroDivisionError:
    print(json.dumps(modules))
"""
    assert run(code) == {"an open eventpoll descriptor": "failing"}
