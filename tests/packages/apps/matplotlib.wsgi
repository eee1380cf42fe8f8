#!/usr/local/bin/wsgate
"""A plot. The server's user has no home, so matplotlib keeps its cache in a temporary directory
that is made at import and removed at exit. A second one is made here as applications do it."""

import os

# Threads that an import starts keep the application from being preloaded.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import tempfile

import matplotlib

matplotlib.use("Agg")

from matplotlib import font_manager
from matplotlib.figure import Figure

SCRATCH = tempfile.TemporaryDirectory(prefix="plots-")


def plot():
    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    axes.plot([1, 2, 3], [1, 4, 9], label="squares")
    axes.set_title("$x^2$")
    axes.legend()
    file = os.path.join(SCRATCH.name, f"{os.getpid()}.png")
    figure.savefig(file, format="png")
    with open(file, "rb") as image:
        return image.read()


def application(environ, start_response):
    image = plot()
    font = os.path.basename(font_manager.findfont("DejaVu Sans", rebuild_if_missing=False))
    headers = [("Content-Type", "image/png"), ("Content-Length", str(len(image)))]
    headers.append(("X-Fonts", " ".join([font, *os.listdir(matplotlib.get_cachedir())])))
    start_response("200 OK", headers)
    return [image]
