import os

from django.core.asgi import get_asgi_application

from shop.asgi.health import health_check

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

application = health_check(get_asgi_application())
