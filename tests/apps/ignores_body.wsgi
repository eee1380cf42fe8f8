#!/usr/local/bin/wsgate
"""Leaves the request's body unread and answers with more than any pipe holds."""


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"0123456789" * 30_000]
