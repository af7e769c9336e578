"""The same, with sessions and users in the database of BENCH_DATABASE (JSON)."""

from __future__ import annotations

import json
import os

from bench.settings import *  # noqa: F403

DATABASES = {"default": json.loads(os.environ["BENCH_DATABASE"])}
SESSION_ENGINE = "django.contrib.sessions.backends.db"
