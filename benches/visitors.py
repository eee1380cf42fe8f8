"""Visitors of a web server: wrk, run once for a figure, and a look at one whole reply."""

import http.client
import json
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import server
from workplace import HERE

PROGRAM = "/usr/bin/wrk"

CONNECTIONS = 8

# Seconds that a reply may take.
PATIENCE = 30

# What is another one in every reply, or the web server's own way to say where a body ends: Apache believes what it is told
# of that by some of its modules, and counts for others.
ASIDE = ("date", "content-length", "transfer-encoding")


@dataclass(frozen=True)
class Visited:
    """A page behind a web server, as a contender."""

    name: str
    # `front.Running`
    front: object
    # What every reply must be.
    body: Path
    # What else was started for it.
    behind: tuple = ()
    # Under which others it is shown.
    panel: str = ""
    unit: str = "/s"

    @property
    def argv(self):
        return self.front.argv

    @property
    def commands(self):
        return (self.front.argv, *self.behind)


def batch(page, seconds):
    """Has visitors ask for `page` for `seconds`, in whole ones; right replies a second, and what failed."""
    argv = words(f"http://127.0.0.1:{page.front.port}/", seconds, page.body)
    try:
        done = subprocess.run(argv, capture_output=True, timeout=seconds + PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return None, [f"no end after {seconds + PATIENCE} s"]
    if done.returncode != 0:
        return None, [(done.stdout + done.stderr).decode("utf-8", "replace").strip()]
    report = json.loads(done.stdout.splitlines()[-1])
    right = report["replies"] - report["status"] - report["body"]
    failures = what_is_wrong(report)
    return (right / report["seconds"] if right else None), failures


def words(url, seconds, body):
    """How wrk is called."""
    load = ("--threads", 1, "--connections", CONNECTIONS, "--duration", f"{seconds}s")
    return list(map(str, [PROGRAM, *load, "--script", HERE / "visitors.lua", url, body]))


def what_is_wrong(report):
    wrong = {
        "another status than 200": report["status"],
        "another body": report["body"],
        "no connection": report["connect"],
        "no reply in two seconds": report["timeout"],
        # Each connection may be waiting when time is up. What is counted as a connection that broke may have been asked
        # for nothing, and one that ended in peace may have been asked in vain.
        "no whole reply": max(report["read"] + report["write"], report["asked"] - report["replies"] - CONNECTIONS, 0),
    }
    return [f"{count} requests: {what}" for what, count in wrong.items() if count]


def look(page):
    """The reply as it comes, without `ASIDE`; waits for one, since some servers load the page at the first request."""
    deadline = time.monotonic() + server.PATIENCE
    while True:
        found = ask(page)
        if found[0] == 200 or time.monotonic() > deadline:
            return found


def ask(page):
    """Status, fields in lower case and in order, body."""
    client = http.client.HTTPConnection("127.0.0.1", page.front.port, timeout=PATIENCE)
    try:
        client.request("GET", "/")
        answer = client.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return (None, (), repr(error))
    finally:
        client.close()
    fields = (f"{name.lower()}: {value}" for name, value in answer.getheaders() if name.lower() not in ASIDE)
    return (answer.status, tuple(sorted(fields)), body)
