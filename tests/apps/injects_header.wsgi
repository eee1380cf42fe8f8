#!/usr/local/bin/wsgate
"""Puts a line end into a header's value."""


def application(environ, start_response):
    headers = [("Content-Type", "text/plain"), ("X-Name", "value\r\nSet-Cookie: a=secret")]
    start_response("200 OK", headers)
    return [b"never"]
