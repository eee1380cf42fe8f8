"""Addresses of the sample site."""

from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.urls import path

from djangosite.notes.views import index

urlpatterns = [
    path("", index),
    path("admin/", admin.site.urls),
    # Spares the sample a `collectstatic`. A real site lets the web server send these files: here each starts a Python.
    path("static/<path:path>", serve, {"insecure": True}),
]
