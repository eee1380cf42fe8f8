#!/usr/local/bin/wsgate
"""Returns a body and never calls start_response."""


def application(environ, start_response):
    return [b"a secret of the application"]
