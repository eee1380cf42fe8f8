#!/usr/local/bin/wsgate
"""Calls itself."""


def application(environ, start_response):
    return application(environ, start_response)
