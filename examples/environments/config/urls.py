"""One page, which says what settings are in force."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import path


def home(request: HttpRequest) -> JsonResponse:
    return JsonResponse(
        {
            "environment": settings.ENVIRONMENT,
            "settings": settings.SETTINGS_MODULE,
            "debug": settings.DEBUG,
        }
    )


urlpatterns = [path("", home)]
