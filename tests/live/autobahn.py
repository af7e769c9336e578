"""Autobahn|Testsuite's fuzzing client against the three servers.

    python -m tests.live.autobahn [--server uvicorn ...] [CASE ...]

The suite of Crossbar.io is for Python 2.7 alone and so is installed apart, from the
package index into build/autobahn; without a python2.7 that has pip nothing is run, and
that is an error. Each server runs tests/projects/echo by the real command.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tests.support.server import Server, copy_project

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "autobahn"
SUITE = "autobahntestsuite==0.8.2"  # the last that was made with all it needs
SERVERS = ("uvicorn", "hypercorn", "daphne")

CASES = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*")
"""All but compression (12 and 13), which daphne does not offer."""

LARGEST = 16 * 2**20
"""Bytes of the largest message in the cases (9)."""

KNOWN = {
    ("uvicorn", "7.1.5"): (
        "websockets fails a close frame between the fragments of a message with 1002"
    )
}
"""What is not as it should be, and not djasgi's to mend: it must still be so."""

GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
"""NON-STRICT: the order in which what came before a broken frame is answered is open."""

RUN = "import site, sys; site.addsitedir(sys.argv.pop(1)); "
RUN += "from autobahntestsuite.wstest import run; run()"


def install() -> list[str | Path]:
    """The command of the suite. Raises SystemExit if it cannot be had."""
    python = shutil.which("python2.7")
    if python is None:
        raise SystemExit("not run: Autobahn|Testsuite needs python2.7")
    if not (BUILD / "autobahntestsuite").exists():
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        needed = [SUITE, "setuptools<45"]  # the last for Python 2.7
        subprocess.run([*pip, "install", "--target", BUILD, *needed], check=True)
    return [python, "-W", "ignore", "-c", RUN, BUILD]


def run(command: list[str | Path], server: str, cases: list[str]) -> dict[str, Any]:
    """What the suite says of each case."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = copy_project("echo", folder)
        limit = ("--ws-max-size", str(LARGEST))
        with Server(
            project, "app.py:application", "--server", server, *limit
        ) as process:
            url = f"ws://127.0.0.1:{process.port}"
            specification = {
                "outdir": str(folder / "report"),
                "servers": [{"agent": server, "url": url}],
                "cases": cases,
                "exclude-cases": [],
                "exclude-agent-cases": {},
            }
            (folder / "specification.json").write_text(json.dumps(specification))
            words: list[str | Path] = [
                "-m",
                "fuzzingclient",
                "-s",
                folder / "specification.json",
            ]
            with (BUILD / f"{server}.log").open("w") as log:
                subprocess.run(
                    [*command, *words],
                    cwd=folder,
                    env={"PATH": os.environ["PATH"]},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    check=True,
                )
            assert process.stop() == 0, process.log
        report = json.loads((folder / "report" / "index.json").read_text())
    results: dict[str, Any] = report[server]
    return results


def main() -> int:
    """Run, and say what is not as it should be."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--server", action="append", choices=SERVERS, default=[])
    parser.add_argument("cases", nargs="*", default=[])
    arguments = parser.parse_args()
    command = install()
    failed = False
    for server in arguments.server or SERVERS:
        results = run(command, server, arguments.cases or list(CASES))
        bad = {
            case: f"{result['behavior']}, close {result['behaviorClose']}"
            for case, result in results.items()
            if not {result["behavior"], result["behaviorClose"]} <= GOOD
        }
        known = {case: why for (name, case), why in KNOWN.items() if name == server}
        mended = (known.keys() & results.keys()) - bad.keys()
        counts = dict(Counter(result["behavior"] for result in results.values()))
        print(f"{server}: {len(results)} cases, {len(bad)} bad, {counts}", flush=True)
        for case in sorted(bad):
            print(f"  {case}: {bad[case]} {known.get(case, '')}")
        for case in sorted(mended):
            print(f"  {case}: is said to be bad, and is not")
        failed = failed or bool(bad.keys() - known.keys() or mended) or not results
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
