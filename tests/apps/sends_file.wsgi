#!/usr/local/bin/wsgate
"""Sends the file `var/big` through wsgi.file_wrapper."""

import os

BIG = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "var", "big")


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return environ["wsgi.file_wrapper"](open(BIG, "rb"))
