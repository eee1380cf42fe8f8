#!/usr/local/bin/wsgate --mode warm --warm-idle 3
"""Says which process has loaded it and which one serves, and gives back what it was sent."""

import os

BORN = os.getpid()


def application(environ, start_response):
    print("warm.wsgi serves", environ["QUERY_STRING"])
    if environ["QUERY_STRING"] == "dies":
        os._exit(1)
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    warm = str(BORN != os.getpid())
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Pid", str(os.getpid())), ("X-Warm", warm)])
    if environ["QUERY_STRING"] == "dies-late":
        return dies(body)
    return [body]


def dies(body):
    yield b"first"
    os._exit(1)
