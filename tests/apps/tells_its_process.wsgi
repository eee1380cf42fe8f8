#!/usr/local/bin/wsgate
"""Says which process serves it, and what it was asked."""

import os


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Pid", str(os.getpid()))])
    return [environ["QUERY_STRING"].encode()]
