#!/usr/local/bin/wsgate --python /nonexistent/python3
"""Names an interpreter that is not there."""


def application(environ, start_response):
    return []
