#!/usr/local/bin/wsgate
"""Says which process serves, and gives back what it was sent."""

import os


def application(environ, start_response):
    print("visits.wsgi serves", environ["QUERY_STRING"])
    if environ["QUERY_STRING"] == "dies":
        os._exit(1)
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Pid", str(os.getpid()))])
    if environ["QUERY_STRING"] == "dies-late":
        return dies(body)
    return [body]


def dies(body):
    yield b"first"
    os._exit(1)
