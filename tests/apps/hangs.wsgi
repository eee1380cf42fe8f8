#!/usr/local/bin/wsgate --timeout 1
"""Never comes to an end."""

import signal


def application(environ, start_response):
    while True:
        signal.pause()
