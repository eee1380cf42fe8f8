#!/usr/local/bin/wsgate
"""The smallest page. Copy this file into cgi-bin, `chmod +x` it, open it in a browser."""


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [b"Hello from WSGI\n"]
