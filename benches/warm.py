"""Warm pools: that they serve every request that counts, and that they end with the run."""

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import time

from cgi_request import status_and_body
from server import ENVIRONMENT
from workplace import Unfit

# Seconds that a pool has to begin, and to end.
PATIENCE = 60

# Has every reply tell what served it: a `new` process, which has loaded the application by itself, one that was `forked` with the
# application loaded, or one that was `kept` after another request. Without that nobody would notice that a request is served cold.
TELLS = """

import os

LOADED_BY = os.getpid()
SERVED = []
served = application


def application(environ, start_response):
    process = "kept" if os.getpid() in SERVED else "new" if os.getpid() == LOADED_BY else "forked"
    SERVED.append(os.getpid())

    def start(status, fields, *more):
        return start_response(status, [*fields, ("Process", process)], *more)

    return served(environ, start)
"""


def who_and_reply(reply):
    """Which kind of process made a CGI reply, with its status and body; None if it is none."""
    who = re.search(rb"^process: *([a-z]+)", reply, re.IGNORECASE | re.MULTILINE)
    found = status_and_body(reply)
    return found and (who and who[1], *found)


def await_process(ask, what):
    """Calls `ask`, which makes a request and tells what is wrong with it, until nothing is: a process of the kind it should be serves."""
    deadline = time.monotonic() + PATIENCE
    while complaint := ask():
        if time.monotonic() > deadline:
            raise Unfit(f"`{what}` does not get warm: {complaint}")


@contextlib.contextmanager
def pools(place, directory, user=None):
    """Ends all pools of `user` with sockets in `directory` afterwards."""
    try:
        yield directory
    finally:
        for pool in running(place, directory, user):
            process = os.pidfd_open(pool["pid"])
            with contextlib.suppress(subprocess.TimeoutExpired):
                ask(place, directory, user, "stop", pool["name"])
            # What is left of it; its workers end with it.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [])
            os.close(process)


def running(place, directory, user=None):
    """The status of each pool."""
    if not directory.exists():
        return []
    return [json.loads(line) for line in ask(place, directory, user, "status", "--json").splitlines()]


def ask(place, directory, user, *words):
    environment = ENVIRONMENT | {"WSGATE_RUNTIME_DIR": str(directory)}
    words = [str(place.wsgate), *words]
    who = {"user": user, "group": user, "extra_groups": []} if user else {}
    done = subprocess.run(
        words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=PATIENCE, check=False, **who
    )
    return done.stdout.decode()
