"""As little as Django needs for one page."""

from __future__ import annotations

SECRET_KEY = "django-insecure-for-this-example-only"
DEBUG = True
ALLOWED_HOSTS: list[str] = []

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
]
ROOT_URLCONF = "config.urls"
USE_TZ = True
