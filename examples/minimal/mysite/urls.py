"""The three pages of the project."""

from __future__ import annotations

from django.urls import path

from mysite import views

urlpatterns = [
    path("", views.home, name="home"),
    path("async/", views.asynchronous, name="async"),
    path("slow/", views.slow, name="slow"),
]
