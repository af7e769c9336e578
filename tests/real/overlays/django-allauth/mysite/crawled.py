from __future__ import annotations

import os
from pathlib import Path

from mysite.settings import *  # noqa: F403
from mysite.settings import INSTALLED_APPS, MIDDLEWARE, TEMPLATES

ROOT = Path(__file__).parents[1]
DEBUG = os.environ.get("CRAWL") == "debug"
ALLOWED_HOSTS = ["localhost"]
SECRET_KEY = "the same for both handlers"
PROJECT_URLCONF, ROOT_URLCONF = "mysite.account_urls", "crawled_urls"
STATIC_ROOT, STATIC_URL = ROOT / "static", "/static/"
MEDIA_ROOT, MEDIA_URL = ROOT / "media", "/media/"
ACCOUNT_LOGOUT_REDIRECT_URL = "/accounts/login/"
LOGIN_REDIRECT_URL = "/accounts/email/"
EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
EMAIL_FILE_PATH = ROOT / "mails"
INSTALLED_APPS = [
    *INSTALLED_APPS,
    "django.contrib.humanize",
    "rest_framework",
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.dummy",
    "allauth.mfa",
    "allauth.usersessions",
    "allauth.headless",
]
MIDDLEWARE = [
    "django.middleware.http.ConditionalGetMiddleware",
    *MIDDLEWARE,
    "allauth.account.middleware.AccountMiddleware",
    "allauth.usersessions.middleware.UserSessionsMiddleware",
]
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
TEMPLATES[0]["OPTIONS"]["context_processors"] += [
    "django.template.context_processors.request",
]
HEADLESS_FRONTEND_URLS = {
    "account_confirm_email": "/confirm/{key}",
    "account_reset_password_from_key": "/reset/{key}",
    "account_signup": "/signup",
}
