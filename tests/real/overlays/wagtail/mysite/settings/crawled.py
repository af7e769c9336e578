from __future__ import annotations

import os

from mysite.settings.dev import *  # noqa: F403
from mysite.settings.dev import INSTALLED_APPS, MIDDLEWARE

DEBUG = os.environ.get("CRAWL") == "debug"
SECRET_KEY = "the same for both handlers"
PROJECT_URLCONF, ROOT_URLCONF = "mysite.urls_api", "crawled_urls"
INSTALLED_APPS = [
    *INSTALLED_APPS,
    "wagtail.api.v2",
    "wagtail.contrib.settings",
    "wagtail.contrib.table_block",
    "wagtail.contrib.routable_page",
    "wagtail.contrib.sitemaps",
    "django.contrib.humanize",
    "django.contrib.sitemaps",
]
MIDDLEWARE = [
    "django.middleware.http.ConditionalGetMiddleware",
    *MIDDLEWARE,
    "django.middleware.locale.LocaleMiddleware",
]
