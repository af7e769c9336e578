"""Tiny projects, written from dictionaries of file names and texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

MANAGE = """\
import os

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.management import execute_from_command_line
    execute_from_command_line()
"""
SETTINGS = """\
from pathlib import Path
BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "d2k7sj3ks92kd8fj3k4l5m6n7b8v9c0x1z2a3s4d5f6g7h8j9k0l"
ALLOWED_HOSTS = ["example.com"]
INSTALLED_APPS = ["shop"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "config.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SECURE_HSTS_SECONDS = 3600
SECURE_HSTS_INCLUDE_SUBDOMAINS = True
SECURE_HSTS_PRELOAD = True
SECURE_SSL_REDIRECT = True
SESSION_COOKIE_SECURE = True
CSRF_COOKIE_SECURE = True
"""
URLS = """\
from django.urls import path
from shop import views
urlpatterns = [path("", views.home)]
"""
VIEWS = """\
from django.http import HttpResponse

def home(request):
    return HttpResponse("home")
"""
ASGI = """\
import os
from django.core.asgi import get_asgi_application
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
application = get_asgi_application()
"""
MODELS = """\
from django.db import models

class Order(models.Model):
    name = models.CharField(max_length=9)
"""
BASE = {
    "manage.py": MANAGE,
    "config/__init__.py": "",
    "config/settings.py": SETTINGS,
    "config/urls.py": URLS,
    "config/asgi.py": ASGI,
    "shop/__init__.py": "",
    "shop/models.py": MODELS,
    "shop/views.py": VIEWS,
}


def settings(text: str) -> dict[str, str]:
    """The settings with `text` at their end."""
    return {"config/settings.py": SETTINGS + text}


def views(text: str) -> dict[str, str]:
    """The views with `text` at their end."""
    return {"shop/views.py": VIEWS + text}


def write(root: Path, *parts: Mapping[str, str]) -> Path:
    """Write the basic project, with `parts` instead or in addition, into `root`."""
    files: dict[str, str] = dict(BASE)
    for part in parts:
        files |= part
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root
