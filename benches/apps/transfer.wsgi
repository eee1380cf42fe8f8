"""Takes a body in pieces, or sends a file by `wsgi.file_wrapper`."""

import hashlib
import os

PIECE = 64 * 1024


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/file":
        file = open(FILE, "rb")
        head = [("Content-Type", "application/octet-stream"), ("Content-Length", str(os.path.getsize(FILE)))]
        start_response("200 OK", head)
        return environ["wsgi.file_wrapper"](file, PIECE)
    # Only the first requests ask for the digest: it takes longer than the transfer.
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
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))])
    return [body]
