#!/usr/local/bin/wsgate
"""Leaves the body to the web server: the query is the name and the value of a header."""

from urllib.parse import unquote


def application(environ, start_response):
    name, _, value = environ["QUERY_STRING"].partition("=")
    headers = [("Content-Type", "text/x-own"), ("Content-Disposition", "attachment")]
    if name:
        headers.append((name, unquote(value)))
    start_response("200 OK", headers)
    return []
