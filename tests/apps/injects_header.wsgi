#!/usr/local/bin/wsgate
"""Puts a line end into a header's value."""


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Name", "value\r\nSet-Cookie: a=secret")])
    return [b"never"]
