DESCRIPTION = "an application of Django, and no ASGI application"
