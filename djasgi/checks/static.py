"""Static files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from djasgi.checks.base import Finding, Needs, check
from djasgi.checks.context import Context


@check(
    "E041",
    "Static files cannot be served",
    row=(24, 25),
    deploy=True,
    needs=Needs.SETTINGS,
    why="With DEBUG off Django serves no static files, and no ASGI server does. Whoever "
    "serves them takes them from STATIC_ROOT, where collectstatic puts them; without it "
    "collectstatic stops with an error and the admin has no style. With a manifest "
    "storage every template that names a static file is a 500.",
    links=("https://docs.djangoproject.com/en/stable/howto/static-files/deployment/",),
    example='INSTALLED_APPS = ["django.contrib.admin", "django.contrib.staticfiles", …]\n'
    "DEBUG = False   # and no STATIC_ROOT",
)
def static_root(context: Context) -> Iterator[Finding]:
    settings = context.settings
    if settings.DEBUG or settings.STATIC_ROOT or not settings.STATIC_URL:
        return
    if "django.contrib.staticfiles" not in settings.INSTALLED_APPS:
        return
    if not _stored_locally(settings) or not _has_static_files():
        return
    if _serves_static(context):
        return
    yield Finding(
        "DEBUG is off, STATIC_ROOT is not set, and nothing serves what STATIC_URL "
        f"({settings.STATIC_URL}) points to.",
        'Set STATIC_ROOT = BASE_DIR / "staticfiles", run collectstatic when you deploy, '
        "and let your proxy or WhiteNoise serve that folder.",
        context.setting("STATIC_URL"),
    )


def _stored_locally(settings: Any) -> bool:
    backend = (settings.STORAGES or {}).get("staticfiles", {}).get("BACKEND", "")
    return str(backend).startswith("django.contrib.staticfiles.")


def _has_static_files() -> bool:
    """Whether there is any file to serve: an app's or a folder's."""
    from django.contrib.staticfiles.finders import get_finders

    try:
        return any(True for finder in get_finders() for _ in finder.list([]))
    except Exception:  # noqa: BLE001  # a finder of the project's; Django reports those
        return False


def _serves_static(context: Context) -> bool:
    middleware = " ".join(context.settings.MIDDLEWARE or ()).lower()
    if "whitenoise" in middleware or "servestatic" in middleware:
        return True
    application = context.application
    for _ in range(20):
        if application is None:
            return False
        if "static" in type(application).__name__.lower():
            return True
        application = getattr(application, "application", None) or getattr(
            application, "app", None
        )
    return False
