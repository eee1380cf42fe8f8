#!/usr/local/bin/wsgate
"""Ends during its response. The query says how, whether it has announced a length, and for how many
seconds the web server has the beginning alone: `how=raises&length=yes&pause=0.3`."""

import os
import time
from urllib.parse import parse_qsl


def application(environ, start_response):
    query = dict(parse_qsl(environ["QUERY_STRING"]))
    headers = [("Content-Type", "text/plain")]
    if query["length"] == "yes":
        headers.append(("Content-Length", "1000"))
    start_response("200 OK", headers)
    yield b"begun\n" * 10
    time.sleep(float(query["pause"]))
    if query["how"] == "raises":
        raise RuntimeError("during the response")
    if query["how"] == "exits":
        os._exit(3)
