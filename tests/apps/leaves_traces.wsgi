#!/usr/local/bin/wsgate
"""Writes a line into `var/traces` for each call, and exits at `/dies`. Caches may store its
responses."""

import os
import time

TRACES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "var", "traces")


def application(environ, start_response):
    with open(TRACES, "a") as traces:
        print(environ["REQUEST_METHOD"], environ["PATH_INFO"], file=traces)
    if environ["PATH_INFO"] == "/dies":
        os._exit(1)
    # Long enough for requests that are sent together to have a connection each.
    time.sleep(0.1)
    headers = [("Content-Type", "text/plain"), ("Cache-Control", "max-age=60")]
    headers.append(("X-Accel-Buffering", "yes"))
    start_response("200 OK", headers)
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else b"the page"]
