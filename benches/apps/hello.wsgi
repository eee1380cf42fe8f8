"""The page of every contender. The page has a Content-Length, so that no server adds one."""


def application(environ, start_response):
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "16")]
    start_response("200 OK", headers)
    return [b"Hello from WSGI\n"]
