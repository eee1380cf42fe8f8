#!/usr/local/bin/wsgate
"""Sets two cookies, and says which it was sent."""


def application(environ, start_response):
    cookies = [("Set-Cookie", "first=1; Path=/"), ("Set-Cookie", "second=2; Path=/")]
    start_response("200 OK", [("Content-Type", "text/plain"), *cookies])
    return [environ.get("HTTP_COOKIE", "none").encode("latin-1")]
