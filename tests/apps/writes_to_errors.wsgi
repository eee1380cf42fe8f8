#!/usr/local/bin/wsgate
"""Writes to `wsgi.errors` before its head and amid its body."""


def application(environ, start_response):
    environ["wsgi.errors"].write("a note before the head\n")
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"only "
    environ["wsgi.errors"].write("a note amid the body\n")
    yield b"this\n"
