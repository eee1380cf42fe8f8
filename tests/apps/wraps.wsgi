#!/usr/local/bin/wsgate
"""Answers with a file, by default itself: the query has its path, and more of the response."""

import os
from urllib.parse import parse_qs


def application(environ, start_response):
    query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
    headers = [tuple(header.split(": ", 1)) for header in query.get("header", [])]
    if "untyped" not in query:
        headers.append(("Content-Type", "text/x-own"))
    path = query.get("path", [__file__])[0]
    file = open(path, "rb")
    file.seek(int(query.get("offset", ["0"])[0]))
    if "replaced" in query:
        os.replace(query["replaced"][0], path)
    if "removed" in query:
        os.unlink(path)
    start_response(query.get("status", ["200 OK"])[0], headers)
    return environ["wsgi.file_wrapper"](file)
