"""The project's URLs, its files, a page that tells which handler serves, one that fails."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path
from django.views.static import serve

project = import_module(settings.PROJECT_URLCONF)


def handler(request: HttpRequest) -> HttpResponse:
    """Whose it is, by the functions that this one is called from."""
    frame: Any = sys._getframe()
    while frame is not None:
        if "djasgi/handler" in Path(frame.f_code.co_filename).as_posix():
            return HttpResponse("djasgi")
        frame = frame.f_back
    return HttpResponse("django")


def raises(request: HttpRequest) -> HttpResponse:
    """A view that fails: status 500."""
    raise ValueError(request.path)


urlpatterns = [
    path("raises/", raises),
    path("which-handler/", handler),
    path("static/<path:path>", serve, {"document_root": settings.STATIC_ROOT}),
    path("media/<path:path>", serve, {"document_root": settings.MEDIA_ROOT}),
    *project.urlpatterns,
]
