"""`python -m djasgi`: the same command as the console script."""

from __future__ import annotations

import os
import sys

try:
    here = os.getcwd()  # noqa: PTH109  # pathlib is not imported before the path is right
except OSError:
    here = ""  # it does not exist any more: cli says so
if not sys.flags.safe_path and sys.path and sys.path[0] in ("", here):
    # -m puts the working directory first, where a project's click.py or
    # hypercorn.py would shadow the package that we are about to import.
    del sys.path[0]

from djasgi.cli import main

main(prog_name="djasgi")
