import json
import os
from pathlib import Path

SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "leased.urls"
INSTALLED_APPS = ["leased"]
MIDDLEWARE = ["leased.middleware.TenantMiddleware"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": Path(__file__).parent.parent / "db.sqlite3",
        **json.loads(os.environ.get("DATABASE", "{}")),
    }
}
