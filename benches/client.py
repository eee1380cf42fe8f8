"""The load on a FastCGI server: `benches/load`, run once for a figure."""

import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

# Seconds that a run may take beyond those it was asked for.
PATIENCE = 120


@dataclass(frozen=True)
class Load:
    """Requests to a server that runs, as a contender."""

    name: str
    running: object
    # The words of `load` that are the contender's own.
    words: tuple
    # What every reply must be: its body, and its fields in lower case and in order.
    body: Path
    fields: tuple
    # The figure that counts: what it is called in the report, and what one is worth in the unit.
    figure: str = "rate"
    unit: str = "/s"
    scale: float = 1.0
    # Done before each run; not timed.
    before: object = field(default=lambda: None, compare=False)

    @property
    def argv(self):
        return self.running.server.argv


def batch(program, load, words):
    """Runs the load of `load` with `words` besides; its figure, and what failed."""
    load.before()
    argv = [program, f"unix:{load.running.server.socket}", "--body", load.body, *load.words, *words]
    try:
        done = subprocess.run(list(map(str, argv)), capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return None, [f"no end after {PATIENCE} s"]
    if done.returncode != 0:
        return None, [done.stderr.decode("utf-8", "replace").strip()]
    report = json.loads(done.stdout)
    failures = what_is_wrong(load, report)
    return (report[load.figure] * load.scale if report["requests"] else None), failures


def what_is_wrong(load, report):
    failures = [f"{count} requests: wrong {what}" for what, count in report["failed"].items() if count]
    if report["requests"] == 0:
        failures.append("no right reply at all")
    elif fields(report["head"]) != load.fields:
        failures.append(f"answered {fields(report['head'])}")
    return failures


def fields(head):
    """The fields of a reply, names in lower case, in order."""
    lines = [re.match(r"([^:]*): *(.*)", line) for line in head.splitlines()]
    return tuple(sorted(f"{line[1].lower()}: {line[2]}" if line else "?" for line in lines))
