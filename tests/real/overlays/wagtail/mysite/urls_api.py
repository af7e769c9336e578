from __future__ import annotations

from django.contrib.sitemaps.views import sitemap
from django.urls import path
from mysite.urls import urlpatterns as started
from wagtail.api.v2.router import WagtailAPIRouter
from wagtail.api.v2.views import PagesAPIViewSet
from wagtail.contrib.sitemaps import Sitemap
from wagtail.documents.api.v2.views import DocumentsAPIViewSet
from wagtail.images.api.v2.views import ImagesAPIViewSet

api = WagtailAPIRouter("api")
api.register_endpoint("pages", PagesAPIViewSet)
api.register_endpoint("images", ImagesAPIViewSet)
api.register_endpoint("documents", DocumentsAPIViewSet)

urlpatterns = [
    path("api/", api.urls),
    path("sitemap.xml", sitemap, {"sitemaps": {"pages": Sitemap}}),
    *started,
]
