#!/usr/local/bin/wsgate
"""Sends an endless body. Its close() writes a line into `var/closed`."""

import os

CLOSED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "var", "closed")


class Endless:
    def __iter__(self):
        yield f"{os.getppid()} {os.getpid()}\n".encode()
        while True:
            yield b"." * 65536

    def close(self):
        with open(CLOSED, "wb") as closed:
            closed.write(b"closed\n")


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Accel-Buffering", "no")])
    return Endless()
