#!/usr/local/bin/wsgate
"""Pyramid, with WebOb's requests: JSON in and out, a session cookie, a file in ranges."""

import os

from pyramid.config import Configurator
from pyramid.response import FileResponse
from pyramid.session import SignedCookieSessionFactory

HERE = os.path.abspath(__file__)


def total(request):
    return {"total": sum(request.json_body), "url": request.route_url("total")}


def visits(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return request.session["visits"]


def source(request):
    response = FileResponse(HERE, request=request, content_type="text/x-python")
    response.conditional_response = True
    return response


with Configurator(session_factory=SignedCookieSessionFactory("s3cret")) as config:
    for view, name in (total, "total"), (visits, "visits"):
        config.add_route(name, f"/{name}")
        config.add_view(view, route_name=name, renderer="json")
    config.add_route("source", "/source")
    config.add_view(source, route_name="source")
    application = config.make_wsgi_app()
