#!/usr/local/bin/wsgate
"""Forgets its return."""


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
