"""Django's settings for the tests that use it in this process."""

from __future__ import annotations

import django
from django.conf import settings
from django.db import connections

WANTED = {
    "SECRET_KEY": "for tests only",
    "ALLOWED_HOSTS": ["*"],
    "DATABASES": {
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
    },
    "LOGGING_CONFIG": None,
    "DEFAULT_CHARSET": "utf-8",
    "USE_I18N": False,
}


def configure() -> None:
    """Settle the settings, whether or not another test has begun to."""
    if not settings.configured:
        settings.configure()
    for name, value in WANTED.items():
        setattr(settings, name, value)
    connections.__dict__.pop("settings", None)
    django.setup()
