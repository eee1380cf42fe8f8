#!/usr/local/bin/wsgate --venv /nonexistent/venv
"""Names a virtualenv that is not there."""


def application(environ, start_response):
    return []
