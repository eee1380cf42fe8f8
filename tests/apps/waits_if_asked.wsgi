#!/usr/local/bin/wsgate
"""Waits for a line in `var/gate` before its second block, if it is asked for with `?wait`."""

import os

GATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "var", "gate")


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Accel-Buffering", "no")])
    yield b"first\n"
    if environ["QUERY_STRING"] == "wait":
        with open(GATE, "rb") as gate:
            gate.readline()
    yield b"second\n"
