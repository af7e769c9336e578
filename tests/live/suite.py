"""Run labels of Django's own suite with a live server, and write down the results.

    python -m tests.live.suite SOURCE RESULT.json SERVER DATABASE LABEL ...

SERVER is `django`, or one of djasgi's, which then serves wherever a test starts a
`LiveServerThread`. DATABASE is `memory` or `file`.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.django.suite import record


def put_in_place(name: str) -> None:
    """The server of this name in each `LiveServerThread`."""
    from django.test import testcases

    from tests.live.server import LIVE, share_connections

    thread: Any = testcases.LiveServerThread
    thread.server_class = LIVE[name]
    share_connections()


def main() -> None:
    source, result, server, database, *labels = sys.argv[1:]
    tests = Path(source) / "tests"
    results: dict[str, str] = {}
    record(results)
    os.chdir(tests)
    sys.path[:0] = [str(tests), source]
    from tests.live.server import served  # needs Django

    if server != "django":
        put_in_place(server)
    settings = "test_sqlite"
    with tempfile.TemporaryDirectory() as folder:
        if database == "file":
            settings = "tests.live.settings_file"
            os.environ["LIVE_DATABASES"] = folder
        arguments = ["--parallel=1", "--verbosity=0", f"--settings={settings}"]
        sys.argv = ["runtests.py", *arguments, *labels]
        try:
            runpy.run_path(str(tests / "runtests.py"), run_name="__main__")
        except SystemExit:
            pass
        finally:
            text = json.dumps({"results": results, "served": served}, indent=1)
            Path(result).write_text(text)


if __name__ == "__main__":
    main()
