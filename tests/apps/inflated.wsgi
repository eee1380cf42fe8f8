#!/usr/local/bin/wsgate
"""Reads its request body, unless `?unread`, and answers with the length and 2 MiB."""


def application(environ, start_response):
    length = -1 if environ["QUERY_STRING"] == "unread" else len(environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Length", str(length))])
    return [b"0123456789abcdef" * 65536, b"0123456789abcdef" * 65536]
