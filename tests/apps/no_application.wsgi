#!/usr/local/bin/wsgate
"""Has a callable, and not by a name that anybody looks for."""


def secret_of_the_application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"never"]
