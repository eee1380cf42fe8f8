#!/usr/local/bin/wsgate
"""Answers with more than any buffer holds at `/large`, and after reading its body at `/body`. A
header names its process."""

import os


def application(environ, start_response):
    path = environ.get("PATH_INFO")
    if path == "/body":
        environ["wsgi.input"].read()
    # nginx passes each block on.
    headers = [("Content-Type", "text/plain"), ("X-Pid", str(os.getpid()))]
    headers.append(("X-Accel-Buffering", "no"))
    start_response("200 OK", headers)
    if path == "/large":
        return (b"x" * 65536 for _ in range(2048))
    return [b"small"]
