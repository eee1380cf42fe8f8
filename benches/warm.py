"""Warm pools: they serve every request that counts, and stop with the run."""

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

# Limit of a pool's start and stop in seconds.
TIMEOUT = 60

# Adds the header `Process` to each response: `new`, a process that has loaded the application
# itself; `forked`, with the application loaded; or `kept`, after another request. Otherwise a
# fallback to cold CGI would not be noticed.
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


def process_and_response(response):
    """Kind of process, status and body of a CGI response; None if it is not one."""
    who = re.search(rb"^process: *([a-z]+)", response, re.IGNORECASE | re.MULTILINE)
    found = status_and_body(response)
    return found and (who and who[1], *found)


def await_process(ask, what):
    """Calls `ask`, which sends a request and returns its fault, until there is no fault."""
    deadline = time.monotonic() + TIMEOUT
    while complaint := ask():
        if time.monotonic() > deadline:
            raise Unfit(f"`{what}` is not served by the pool: {complaint}")


@contextlib.contextmanager
def pools(place, directory, user=None):
    """Stops all pools of `user` with sockets in `directory` afterwards."""
    try:
        yield directory
    finally:
        for pool in running(place, directory, user):
            process = os.pidfd_open(pool["pid"])
            with contextlib.suppress(subprocess.TimeoutExpired):
                ask(place, directory, user, "stop", pool["name"])
            # If it still runs; its workers exit with it.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [])
            os.close(process)


def running(place, directory, user=None):
    """The status of each pool."""
    if not directory.exists():
        return []
    return [
        json.loads(line) for line in ask(place, directory, user, "status", "--json").splitlines()
    ]


def ask(place, directory, user, *words):
    environment = ENVIRONMENT | {"WSGATE_RUNTIME_DIR": str(directory)}
    words = [str(place.wsgate), *words]
    who = {"user": user, "group": user, "extra_groups": []} if user else {}
    done = subprocess.run(
        words,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=TIMEOUT,
        check=False,
        **who,
    )
    return done.stdout.decode()
