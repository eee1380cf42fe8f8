#!/usr/local/bin/wsgate
"""Writes to `wsgi.errors` before its response headers and during its body."""


def application(environ, start_response):
    environ["wsgi.errors"].write("a note before the headers\n")
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"only "
    environ["wsgi.errors"].write("a note during the body\n")
    yield b"this\n"
