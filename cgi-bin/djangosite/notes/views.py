"""The one public page."""

from django.http import HttpResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join

from djangosite.notes.models import Note


def index(request):
    rows = Note.objects.values_list("title", "text")
    notes = format_html_join("\n", "<h2>{}</h2>\n<p>{}</p>", rows)
    return HttpResponse(
        format_html(
            "<!DOCTYPE html>\n<title>Notes</title>\n<h1>Notes</h1>\n{}\n"
            '<p><a href="{}">Write one</a></p>\n',
            notes,
            reverse("admin:index"),
        )
    )
