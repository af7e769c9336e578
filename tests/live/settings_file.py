"""Settings for Django's suite with a database in a file, and connections that stay.

Then nothing is shared with the threads of a live server: each has its own connection,
and keeps it from one request to the next.
"""

from __future__ import annotations

import os

DATABASES = {
    alias: {
        "ENGINE": "django.db.backends.sqlite3",
        "CONN_MAX_AGE": None,
        "OPTIONS": {"timeout": 20},
        "TEST": {"NAME": os.path.join(os.environ["LIVE_DATABASES"], alias)},  # noqa: PTH118
    }
    for alias in ("default", "other")
}
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
