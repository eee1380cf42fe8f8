#!/usr/local/bin/wsgate
"""Sends its whole body, and returns from close() when a line is written into `var/gate`. Then it
writes a line into `var/closed`."""

import os

VAR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "var")


class Body:
    def __iter__(self):
        yield b"all\n"

    def close(self):
        with open(os.path.join(VAR, "gate"), "rb") as gate:
            gate.readline()
        with open(os.path.join(VAR, "closed"), "wb") as closed:
            closed.write(b"closed\n")


def application(environ, start_response):
    headers = [("Content-Type", "text/plain"), ("Content-Length", "4"), ("X-Accel-Buffering", "no")]
    start_response("200 OK", headers)
    return Body()
