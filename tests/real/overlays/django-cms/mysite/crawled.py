from __future__ import annotations

import os
from pathlib import Path

from mysite.settings import *  # noqa: F403
from mysite.settings import INSTALLED_APPS, TEMPLATES

ROOT = Path(__file__).parents[1]
DEBUG = os.environ.get("CRAWL") == "debug"
ALLOWED_HOSTS = ["localhost"]
SECRET_KEY = "the same for both handlers"
PROJECT_URLCONF, ROOT_URLCONF = "mysite.cms_urls", "crawled_urls"
SITE_ID = 1
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
LANGUAGE_CODE = "en"
STATIC_ROOT, STATIC_URL = ROOT / "static", "/static/"
MEDIA_ROOT, MEDIA_URL = ROOT / "media", "/media/"
CMS_CONFIRM_VERSION4 = True
CMS_TEMPLATES = [("page.html", "Page")]
X_FRAME_OPTIONS = "SAMEORIGIN"
INSTALLED_APPS = [
    "djangocms_admin_style",
    *INSTALLED_APPS,
    "django.contrib.sites",
    "cms",
    "menus",
    "sekizai",
    "treebeard",
    "djangocms_text",
]
MIDDLEWARE = [
    "django.middleware.cache.UpdateCacheMiddleware",
    "django.middleware.http.ConditionalGetMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "cms.middleware.user.CurrentUserMiddleware",
    "cms.middleware.page.CurrentPageMiddleware",
    "cms.middleware.toolbar.ToolbarMiddleware",
    "cms.middleware.language.LanguageCookieMiddleware",
    "django.middleware.cache.FetchFromCacheMiddleware",
]
TEMPLATES[0]["DIRS"] = [ROOT / "templates"]
TEMPLATES[0]["OPTIONS"]["context_processors"] += [
    "django.template.context_processors.i18n",
    "sekizai.context_processors.sekizai",
    "cms.context_processors.cms_settings",
]
