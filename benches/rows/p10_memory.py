"""P10: the memory of many processes with Flask in them."""

import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import client
import peers
import server
from measure import Ratio, Result, take_turns

ID = "P10"
TITLE = "PSS of 8 processes with Flask, and of those above them, after requests to each"

HELD = (
    "the supervisor is a process without Python beside the template process (3 MiB, most of "
    "it the file of its program). uWSGI's master is both."
)

TURNS = 5
WORKERS = 8
# Requests of each worker before its memory is read: enough for Python's collector to have visited
# all objects, as in any worker that has run for a while.
ROUNDS = 500

# Limit in seconds until all workers have a request.
TIMEOUT = 60

FIELDS = ("content-length: 11", "content-type: text/html; charset=utf-8", "status: 200 OK")


@dataclass(frozen=True)
class Pool:
    """A server that is started for each figure."""

    name: str
    server: object
    unit: str = " MiB"

    @property
    def argv(self):
        return self.server.argv


def run(place, plan):
    """Measures the row."""
    these = peers.prepare(place)
    meeting = place.directory / "meeting.sock"
    body = these.file("meeting.body", b"Hello World")
    app = these.app("meeting.wsgi", MEETING=str(meeting))
    workers = plan.size(WORKERS, 2)
    contenders = [
        Pool("wsgate", these.wsgate(app, workers)),
        Pool("uWSGI, lazy-apps", these.uwsgi(app, workers, "--lazy-apps")),
        Pool("uWSGI, preforked", these.uwsgi(app, workers)),
    ]

    def batch(pool):
        with server.start(place, pool.server) as running:
            failures = meet(these, running, meeting, body, workers, plan.runs(ROUNDS))
            return (
                sum(server.memory(pid, "smaps_rollup", "Pss") for pid in running.processes),
                failures,
            )

    wsgate, lazy, preforked = take_turns(contenders, plan.turns(TURNS), batch)
    ratios = [Ratio(wsgate, lazy, goal=0.60), Ratio(wsgate, preforked, goal=1.00)]
    return Result(ID, TITLE, ratios, [], notes=f"with {these.versions}")


def meet(these, running, path, body, workers, rounds):
    """Sends `rounds` requests to each worker; returns the failures.

    A worker serves one request at a time, and no request ends before all workers have one.
    """
    path.unlink(missing_ok=True)
    words = ("--connections", workers, "--path", "/meet")
    load = client.Load(running.server.name, running, words, body, FIELDS, figure="requests")
    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor() as beside:
        listener.bind(str(path))
        listener.listen(workers)
        listener.settimeout(TIMEOUT)
        asked = beside.submit(client.batch, these.load, load, ("--requests", workers * rounds))
        try:
            for _ in range(rounds):
                for guest in [listener.accept()[0] for _ in range(workers)]:
                    guest.close()
        except TimeoutError:
            # Waiting requests go on when the listener is closed.
            listener.close()
            return [f"not all of {workers} workers had a request at once", *asked.result()[1]]
        return asked.result()[1]
