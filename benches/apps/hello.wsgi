"""The page that every contender serves. It says how long it is, so that no server adds that by itself."""


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "16")])
    return [b"Hello from WSGI\n"]
