import os

SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["site.example"] if os.environ.get("STRICT") else ["*"]
SECURE_SSL_REDIRECT = bool(os.environ.get("STRICT"))
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware"]
ROOT_URLCONF = "live.urls"
GREETING = "hello"
