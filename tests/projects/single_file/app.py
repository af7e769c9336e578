import os

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import JsonResponse
from django.urls import path

settings.configure(
    SECRET_KEY="for tests only", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__
)


def index(request):
    return JsonResponse(
        {"settings": os.environ.get("DJANGO_SETTINGS_MODULE"), "path": request.path}
    )


urlpatterns = [path("", index)]

application = get_asgi_application()
