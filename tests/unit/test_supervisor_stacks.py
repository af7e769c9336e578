from __future__ import annotations

import pytest

from djasgi.supervisor.stacks import is_debugged


@pytest.mark.parametrize(
    ("line", "debugged"),
    [
        ('  File "/usr/lib/python3.11/bdb.py", line 1 in dispatch_line', True),
        ('  File "/venv/pydevd/x.py", line 1 in wait', True),
        ('  File "/app/shop/views.py", line 1 in view', False),
    ],
)
def test_a_debugger_is_known_by_its_frames(line: str, debugged: bool) -> None:
    assert is_debugged(["Thread 1:", line]) is debugged
