#!/usr/local/bin/wsgate
"""Accepts an upload of any size and responds with its length and SHA-256:
`curl -T big.iso http://…/upload.wsgi`.

The application reads the body piece by piece, so that a gigabyte takes no more memory than a
kilobyte. The digest of a form includes the multipart lines that the browser adds.
"""

import hashlib

PIECE = 64 * 1024

FORM = b"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>Upload</title></head>
<body>
<form method="post" enctype="multipart/form-data">
<input type="file" name="file"> <button>Upload</button>
</form>
</body>
</html>
"""


def application(environ, start_response):
    if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
        start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
        return [FORM]
    if environ["REQUEST_METHOD"] not in ("POST", "PUT"):
        headers = [("Content-Type", "text/plain"), ("Allow", "GET, HEAD, POST, PUT")]
        start_response("405 Method Not Allowed", headers)
        return [b"GET, POST or PUT, please\n"]

    size, digest = 0, hashlib.sha256()
    while piece := environ["wsgi.input"].read(PIECE):
        size += len(piece)
        digest.update(piece)

    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"bytes: {size}\nsha256: {digest.hexdigest()}\n".encode()]
