#!/usr/local/bin/wsgate
"""Leaves through SystemExit."""

import sys


def application(environ, start_response):
    sys.exit("a secret of the application")
