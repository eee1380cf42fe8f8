#!/usr/local/bin/wsgate
"""Is no Python."""


def application(environ, start_response)
    return ["a secret of the application"]
