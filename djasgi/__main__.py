"""`python -m djasgi`: the same command as the console script."""

from __future__ import annotations

import os
import sys

if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.getcwd()):  # noqa: PTH109
    # -m puts the working directory first, where a project's click.py or
    # hypercorn.py would shadow the package that we are about to import.
    del sys.path[0]

from djasgi.cli import main

main(prog_name="djasgi")
