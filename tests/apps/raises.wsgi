#!/usr/local/bin/wsgate
"""Raises when it is called."""


def application(environ, start_response):
    raise RuntimeError("a secret of the application")
