#!/usr/local/bin/wsgate
"""Returns text where bytes belong."""


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html")])
    return "<h1>a secret of the application</h1>"
