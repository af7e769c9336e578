"""One page, which does not know where it is mounted."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.urls import path, reverse


def home(request: HttpRequest) -> HttpResponse:
    started = request.scope["state"]["started"]
    return HttpResponse(
        f"Django at {reverse('home')}, in a gateway that started {started:%H:%M:%S}.\n",
        content_type="text/plain",
    )


urlpatterns = [path("", home, name="home")]
