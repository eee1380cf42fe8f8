#!/usr/local/bin/wsgate
"""Imports what is not installed."""

import a_secret_of_the_application


def application(environ, start_response):
    return []
