import os

from django.http import JsonResponse
from django.urls import path


def index(request):
    return JsonResponse(
        {"settings": os.environ["DJANGO_SETTINGS_MODULE"], "path": request.path}
    )


urlpatterns = [path("", index)]
