from django.urls import path

from live import views

urlpatterns = [
    path("", views.index),
    path("slow/<int:milliseconds>/", views.slow),
    path("stream/<int:milliseconds>/", views.stream),
    path("events/", views.events),
    path("block/<int:milliseconds>/", views.block),
    path("crash/<how>/", views.crash),
    path("grow/<int:mebibytes>/", views.grow),
]
