#!/usr/local/bin/wsgate
"""Sends the browser to another page of this server, by a path alone."""


def application(environ, start_response):
    start_response("302 Found", [("Location", "/cgi-bin/hello.wsgi"), ("Content-Type", "text/plain")])
    return [b"Over there\n"]
