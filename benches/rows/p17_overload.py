"""P17: twice as many requests as two workers can serve, with a limit of the time that they wait."""

import client
import hello
import peers
import server
from measure import Limit

ID = "P17"
# How long a request takes, and how long it may wait, in seconds.
SERVICE = 0.02
QUEUE = 1
# Requests a second: the capacity is WORKERS / SERVICE.
RATE = int(2 * hello.WORKERS / SERVICE)
TITLE = (
    f"{RATE} requests a second, twice the capacity, with `--queue {QUEUE}`: "
    "99th percentile of the times of served requests, divided by queue and service time"
)

# More than wait and are served at a time.
CLIENTS = 3 * RATE
TURNS = 5
SECONDS = 4


def run(place, plan):
    """Measures the row."""
    these = peers.prepare(place)
    app = these.app("sleeps.wsgi", SECONDS=SERVICE)
    words = ("--rate", RATE, "--connections", CLIENTS, "--refused", "503 Service Unavailable")
    body = these.file("hello.body", b"Hello from WSGI\n")
    bound = 1e6 * (QUEUE + SERVICE)
    with server.start(place, these.wsgate(app, hello.WORKERS, "--queue", QUEUE)) as running:
        loads = [
            client.Load(
                name, running, words, body, hello.FIELDS, figure=figure, unit="", scale=1 / bound
            )
            for name, figure in (("served", "p99"), ("refused", "refused_p99"))
        ]
        taken = hello.take(place, plan, loads, TURNS, SECONDS)
    return hello.result(place, ID, TITLE, [Limit(taken[0], goal=1.1)], [taken[1]])
