"""The load on a web server: each figure is one run of wrk."""

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

# Limit of a response in seconds.
TIMEOUT = 30

# Headers that differ between responses, or by which the web server says where a body ends: Apache
# trusts the length of some of its modules, and counts for others.
ASIDE = ("date", "content-length", "transfer-encoding")


@dataclass(frozen=True)
class Page:
    """A page behind a web server, as a contender."""

    name: str
    # `web_server.Running`
    web_server: object
    # The expected body.
    body: Path
    # Commands of the servers behind it.
    behind: tuple = ()
    # The panel of the chart.
    panel: str = ""
    unit: str = "/s"

    @property
    def argv(self):
        return self.web_server.argv

    @property
    def commands(self):
        return (self.web_server.argv, *self.behind)


def batch(page, seconds):
    """Requests `page` for whole `seconds`; returns correct responses a second, and the failures."""
    argv = words(f"http://127.0.0.1:{page.web_server.port}/", seconds, page.body)
    try:
        done = subprocess.run(argv, capture_output=True, timeout=seconds + TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return None, [f"no end after {seconds + TIMEOUT} s"]
    if done.returncode != 0:
        return None, [(done.stdout + done.stderr).decode("utf-8", "replace").strip()]
    report = json.loads(done.stdout.splitlines()[-1])
    right = report["responses"] - report["status"] - report["body"]
    failures = what_is_wrong(report)
    return (right / report["seconds"] if right else None), failures


def words(url, seconds, body):
    """The command line of wrk."""
    load = ("--threads", 1, "--connections", CONNECTIONS, "--duration", f"{seconds}s")
    return list(map(str, [PROGRAM, *load, "--script", HERE / "wrk.lua", url, body]))


def what_is_wrong(report):
    wrong = {
        "another status than 200": report["status"],
        "another body": report["body"],
        "no connection": report["connect"],
        "no response in two seconds": report["timeout"],
        # Each connection may wait for a response at the end. A broken connection may have had no
        # request, and one that closed cleanly may have had one.
        "no complete response": max(
            report["read"] + report["write"], report["asked"] - report["responses"] - CONNECTIONS, 0
        ),
    }
    return [f"{count} requests: {what}" for what, count in wrong.items() if count]


def look(page):
    """The response without `ASIDE`; waits, as some servers load the page at the first request."""
    deadline = time.monotonic() + server.TIMEOUT
    while True:
        found = ask(page)
        if found[0] == 200 or time.monotonic() > deadline:
            return found


def ask(page):
    """Status, sorted headers in lower case, body."""
    client = http.client.HTTPConnection("127.0.0.1", page.web_server.port, timeout=TIMEOUT)
    try:
        client.request("GET", "/")
        answer = client.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return (None, (), repr(error))
    finally:
        client.close()
    fields = (
        f"{name.lower()}: {value}"
        for name, value in answer.getheaders()
        if name.lower() not in ASIDE
    )
    return (answer.status, tuple(sorted(fields)), body)
