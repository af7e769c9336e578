"""Keeps the tenant of a request where such things are kept."""

import threading
from contextvars import ContextVar

from django.utils.deprecation import MiddlewareMixin

local = threading.local()
variable = ContextVar("variable", default=None)


class TenantMiddleware(MiddlewareMixin):
    def process_request(self, request):
        local.tenant = request.GET.get("tenant", "")
        local.thread = threading.get_ident()
        variable.set(local.tenant)

    def process_response(self, request, response):
        response["Tenant"] = f"{local.tenant},{variable.get()}"
        response["Same-Thread"] = str(local.thread == threading.get_ident())
        return response
