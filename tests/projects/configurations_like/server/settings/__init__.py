import os

from server.settings.components.common import *

ENVIRONMENT = os.environ.get("DJANGO_ENV", "development")

# Not importable alone: they change what the components have set.
if ENVIRONMENT == "production":
    from server.settings.environments.production import *
else:
    from server.settings.environments.development import *
