#!/usr/local/bin/wsgate
"""Waits for a line in `var/gate` before it responds."""

import os

GATE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "var", "gate")


def application(environ, start_response):
    print("at the gate")
    with open(GATE, "rb") as gate:
        gate.readline()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done\n"]
