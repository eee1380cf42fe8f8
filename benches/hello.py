"""Shared parts of the rows about a hello page over FastCGI: servers, load, duration."""

import contextlib

import client
import peers
import server
from measure import Result, take_turns

TURNS = 15
SECONDS = 1.0
# Time to accept, and for the processor to find its frequency.
WARM_UP = 0.1

# As many as clients, so that a server with one connection per process can keep them all.
WORKERS = 2
CLIENTS = 2

WHO = f"{CLIENTS} clients, {WORKERS} processes"

FIELDS = ("content-length: 16", "content-type: text/plain; charset=utf-8", "status: 200 OK")


@contextlib.contextmanager
def servers(place):
    """Starts all servers of the page; yields them by name."""
    these = peers.prepare(place)
    app = these.app("hello.wsgi")
    wanted = (
        these.wsgate(app, WORKERS),
        these.uwsgi(app, WORKERS),
        these.c_program("C with libfcgi", "hello_fastcgi", WORKERS),
        these.flup(app, WORKERS),
        these.c_program("null FastCGI server", "null_fastcgi", WORKERS),
    )
    with contextlib.ExitStack() as stack:
        yield {each.name: stack.enter_context(server.start(place, each)) for each in wanted}


def load(place, running, name, *words, **figure):
    """Clients of `running` as a contender."""
    body = peers.prepare(place).file("hello.body", b"Hello from WSGI\n")
    return client.Load(name, running, ("--connections", CLIENTS, *words), body, FIELDS, **figure)


def take(place, plan, loads, turns=TURNS, seconds=SECONDS):
    """Lets `loads` take turns; returns their figures."""
    words = ("--seconds", plan.seconds(seconds), "--warm-up", plan.seconds(WARM_UP))
    program = peers.prepare(place).load
    return take_turns(loads, plan.turns(turns), lambda load: client.batch(program, load, words))


def result(place, row, title, ratios, beside):
    return Result(row, title, ratios, beside, notes=f"with {peers.prepare(place).versions}")
