"""On the machine of whoever writes the code."""

from __future__ import annotations

from config.settings.base import *  # noqa: F403

SECRET_KEY = "django-insecure-development-only"
DEBUG = True
