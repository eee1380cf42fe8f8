#!/usr/local/bin/wsgate
"""Prints: itself, from C, and from a program that it starts."""

import os
import subprocess


def application(environ, start_response):
    print("printed by Python")
    os.write(1, b"written to descriptor 1\n")
    subprocess.run(["echo", "echoed by a child"], check=True)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"only this\n"]
