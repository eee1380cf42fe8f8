"""Takes a body in pieces, or sends a file by `wsgi.file_wrapper`."""

import hashlib
import os

PIECE = 64 * 1024


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/file":
        file = open(FILE, "rb")
        length = str(os.path.getsize(FILE))
        headers = [("Content-Type", "application/octet-stream"), ("Content-Length", length)]
        start_response("200 OK", headers)
        return environ["wsgi.file_wrapper"](file, PIECE)
    # Only the first requests use the digest, which takes longer than the transfer.
    digest = hashlib.sha256() if path == "/digest" else None
    stream = environ["wsgi.input"]
    left = int(environ["CONTENT_LENGTH"])
    count = 0
    while left > 0 and (piece := stream.read(min(PIECE, left))):
        left -= len(piece)
        count += len(piece)
        if digest:
            digest.update(piece)
    body = f"{digest.hexdigest() if digest else count}\n".encode()
    length = str(len(body))
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", length)]
    start_response("200 OK", headers)
    return [body]
