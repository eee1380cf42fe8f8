#!/usr/local/bin/wsgate
"""Ends its process without a word."""

import os


def application(environ, start_response):
    os._exit(0)
