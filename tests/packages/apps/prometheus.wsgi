#!/usr/local/bin/wsgate
"""A counter of prometheus_client in its mode for several processes."""

import os

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DIRECTORY = os.path.join(ROOT, "var", "metrics")
os.makedirs(DIRECTORY, exist_ok=True)
os.environ["PROMETHEUS_MULTIPROC_DIR"] = DIRECTORY

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

VISITS = Counter("visits", "Requests for anything but the metrics")
BY_METHOD = Counter("methods", "The same by request method", ["method"])


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain; version=0.0.4; charset=utf-8")])
    if environ["PATH_INFO"] == "/metrics":
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return [generate_latest(registry)]
    VISITS.inc()
    BY_METHOD.labels(environ["REQUEST_METHOD"]).inc()
    return [str(os.getpid()).encode()]
