#!/usr/local/bin/wsgate
"""Reads a body as upload.wsgi does, or with `?form` as Flask reads a form. A header has the peak
memory of the process."""

import hashlib
import os
import runpy

HERE = os.path.dirname(os.path.abspath(__file__))


def peak_kib():
    # Not getrusage: its figure is also that of the process which became this one.
    with open("/proc/self/status") as status:
        return next(line.split()[1] for line in status if line.startswith("VmHWM:"))


def flask_form(environ, start_response):
    from flask import Flask, request

    app = Flask("peak_memory")

    @app.post("/")
    def digest():
        file, size, sha256 = request.files["file"].stream, 0, hashlib.sha256()
        while piece := file.read(65536):
            size += len(piece)
            sha256.update(piece)
        return f"bytes: {size}\nsha256: {sha256.hexdigest()}\n"

    return app(environ, start_response)


def application(environ, start_response):
    def with_peak(status, headers, exc_info=None):
        return start_response(status, [*headers, ("X-Peak-Memory-KiB", peak_kib())], exc_info)

    if environ["QUERY_STRING"] == "form":
        return flask_form(environ, with_peak)
    return runpy.run_path(os.path.join(HERE, "upload.wsgi"))["application"](environ, with_peak)
