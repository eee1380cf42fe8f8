"""The page of `hello.wsgi` after a while, as if a database were slow: `SECONDS`."""

import time


def application(environ, start_response):
    time.sleep(SECONDS)
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "16")]
    start_response("200 OK", headers)
    return [b"Hello from WSGI\n"]
