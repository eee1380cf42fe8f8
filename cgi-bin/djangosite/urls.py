"""URLs of the sample site."""

from django.contrib import admin
from django.contrib.staticfiles.views import serve
from django.urls import path

from djangosite.notes.views import index

urlpatterns = [
    path("", index),
    path("admin/", admin.site.urls),
    # Replaces `collectstatic` in the sample. On a real site the web server sends these files: here
    # each one starts a Python process.
    path("static/<path:path>", serve, {"insecure": True}),
]
