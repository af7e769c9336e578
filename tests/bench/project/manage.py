"""Where djasgi finds the project of the benchmark."""

from __future__ import annotations

import os

if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench.settings")
    execute_from_command_line()
