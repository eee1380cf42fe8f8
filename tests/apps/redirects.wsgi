#!/usr/local/bin/wsgate
"""Sends the browser to another page of this server, by a path alone."""


def application(environ, start_response):
    headers = [("Location", "/cgi-bin/hello.wsgi"), ("Content-Type", "text/plain")]
    start_response("302 Found", headers)
    return [b"Over there\n"]
