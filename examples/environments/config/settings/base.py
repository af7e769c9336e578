"""What every environment shares."""

from __future__ import annotations

import os

ENVIRONMENT = os.environ.get("DJANGO_ENV", "development")

INSTALLED_APPS: list[str] = []
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "config.urls"
USE_TZ = True
