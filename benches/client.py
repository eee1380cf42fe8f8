"""The load on a FastCGI server: each figure is one run of `benches/load`."""

import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

# Seconds that a run may take beyond its own.
TIMEOUT = 120


@dataclass(frozen=True)
class Load:
    """Requests to a running server, as a contender."""

    name: str
    running: object
    # The contender's own arguments for `load`.
    words: tuple
    # Every response has this body, and these sorted headers in lower case.
    body: Path
    fields: tuple
    # The figure's name in the report, and its factor for the unit.
    figure: str = "rate"
    unit: str = "/s"
    scale: float = 1.0
    # Done before each run; not timed.
    before: object = field(default=lambda: None, compare=False)

    @property
    def argv(self):
        return self.running.server.argv


def batch(program, load, words):
    """Runs `load` with further arguments; returns its figure and the failures."""
    load.before()
    argv = [program, f"unix:{load.running.server.socket}", "--body", load.body, *load.words, *words]
    try:
        done = subprocess.run(
            list(map(str, argv)), capture_output=True, timeout=TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return None, [f"no end after {TIMEOUT} s"]
    if done.returncode != 0:
        return None, [done.stderr.decode("utf-8", "replace").strip()]
    report = json.loads(done.stdout)
    failures = what_is_wrong(load, report)
    return (report[load.figure] * load.scale if report["requests"] else None), failures


def what_is_wrong(load, report):
    failures = [
        f"{count} requests: wrong {what}" for what, count in report["failed"].items() if count
    ]
    if report["requests"] == 0:
        failures.append("no correct response")
    elif fields(report["headers"]) != load.fields:
        failures.append(f"answered {fields(report['headers'])}")
    return failures


def fields(headers):
    """The headers of a response, sorted, with names in lower case."""
    lines = [re.match(r"([^:]*): *(.*)", line) for line in headers.splitlines()]
    return tuple(sorted(f"{line[1].lower()}: {line[2]}" if line else "?" for line in lines))
