#!/usr/local/bin/wsgate
"""Makes its second block when somebody writes a line into `var/gate`."""

import os

GATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "var", "gate")


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Accel-Buffering", "no")])
    yield b"first\n"
    with open(GATE, "rb") as gate:
        gate.readline()
    yield b"second\n"
