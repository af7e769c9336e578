"""Where people use it: what is secret, or differs by machine, is a variable."""

from __future__ import annotations

import os

from config.settings.base import *  # noqa: F403

SECRET_KEY = os.environ["SECRET_KEY"]
DEBUG = False
ALLOWED_HOSTS = os.environ["ALLOWED_HOSTS"].split(",")

# This example is served by plain http, on your own machine. A site of yours sets
# SECURE_HSTS_SECONDS, SECURE_SSL_REDIRECT and CSRF_COOKIE_SECURE instead.
SILENCED_SYSTEM_CHECKS = ["security.W004", "security.W008", "security.W016"]
