import os

from django.conf import settings
from django.http import JsonResponse
from django.urls import path


def index(request):
    return JsonResponse(
        {"settings": os.environ["DJANGO_SETTINGS_MODULE"], "path": request.path}
        | {"environment": settings.ENVIRONMENT, "debug": settings.DEBUG}
    )


urlpatterns = [path("", index)]
