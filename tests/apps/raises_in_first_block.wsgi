#!/usr/local/bin/wsgate
"""Raises when its first block is asked for."""


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    raise RuntimeError("a secret of the application")
    yield b"never"
