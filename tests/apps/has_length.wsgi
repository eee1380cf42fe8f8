#!/usr/local/bin/wsgate
"""Answers with blocks and a Content-Length, which fits or does not, as the path says."""


def blocks(count):
    for _ in range(count):
        yield b"0123456789" * 1000


def application(environ, start_response):
    path = environ.get("PATH_INFO")
    length = {"/fits": 100_000, "/short": 100_000, "/raises": 100_000, "/long": 50_000}.get(path)
    headers = [("Content-Type", "text/plain"), ("ETag", '"1"')]
    if length is not None:
        headers.append(("Content-Length", str(length)))
    start_response("200 OK", headers)
    if path == "/list":
        return [b"0123456789"]
    if path == "/raises":
        return (block if number < 5 else 1 / 0 for number, block in enumerate(blocks(10)))
    return blocks(5 if path == "/short" else 10)
