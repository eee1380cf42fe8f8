"""P8: large bodies by FastCGI, there and back."""

import contextlib
import hashlib
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import client
import peers
import server
from measure import Limit, Ratio, Result, take_turns
from workplace import Unfit

ID = "P8"
TITLE = (
    "100 MB upload read in pieces of 64 KiB, 100 MB file by wsgi.file_wrapper, 1 process, time; "
    "growth of the peak memory"
)

TURNS = 11
# Transfers in a batch, one after the other.
RUNS = 9
SIZE = 100_000_000
ENOUGH = 3_000_000
# Size of the upload whose digest is compared; small, so that a large one shows its memory.
CHECKED = 1_000_000

# Limit of the growth in MiB.
FLAT = 2.0


@dataclass(frozen=True)
class Growth:
    """Peak memory of a worker in the run before, above that after a small request."""

    name: str
    running: object
    before: float
    unit: str = " MiB"

    @property
    def argv(self):
        return self.running.server.argv


def run(place, plan):
    """Measures the row."""
    these = peers.prepare(place)
    size = plan.size(SIZE, ENOUGH)
    file = these.file("large", (bytes(range(256)) * (size // 256 + 1))[:size])
    count = these.file("count", f"{size}\n".encode())
    app = these.app("transfer.wsgi", FILE=str(file))
    received = ("content-type: text/plain; charset=utf-8", "status: 200 OK")
    sent = (f"content-length: {size}", "content-type: application/octet-stream", "status: 200 OK")
    transfers = {
        "upload": (
            ("--path", "/count", "--post", size),
            count,
            (f"content-length: {len(str(size)) + 1}", *received),
        ),
        "file": (("--path", "/file"), file, sent),
    }
    contenders = []
    with contextlib.ExitStack() as stack:
        for each in (these.wsgate(app, 1), these.uwsgi(app, 1)):
            running = stack.enter_context(server.start(place, each))
            check_digest(these, running, CHECKED)
            before = memory(running, "VmRSS")
            for what, (words, body, fields) in transfers.items():
                words = ("--connections", 1, *words)
                figure = {
                    "figure": "p50",
                    "unit": " ms",
                    "scale": 1e-3,
                    "before": lambda it=running: forget_peak(it),
                }
                contenders.append(
                    client.Load(f"{each.name}, {what}", running, words, body, fields, **figure)
                )
                contenders.append(Growth(f"{each.name}, growth by {what}", running, before))
        # Compared contenders take turns next to each other.
        contenders = [contenders[index] for index in (0, 1, 4, 5, 2, 3, 6, 7)]
        words = ("--requests", plan.runs(RUNS))
        figures = take_turns(
            contenders, plan.turns(TURNS), lambda contender: batch(these, contender, words)
        )
    (
        upload,
        growth,
        their_upload,
        their_growth,
        sending,
        sending_growth,
        their_sending,
        their_sending_growth,
    ) = figures
    claims = [
        Ratio(upload, their_upload, goal=1.00),
        Ratio(sending, their_sending, goal=1.00),
        Limit(growth, goal=FLAT),
        Limit(sending_growth, goal=FLAT),
    ]
    return Result(
        ID, TITLE, claims, [their_growth, their_sending_growth], notes=f"with {these.versions}"
    )


def batch(these, contender, words):
    if isinstance(contender, Growth):
        return memory(contender.running, "VmHWM") - contender.before, []
    return client.batch(these.load, contender, words)


def check_digest(these, running, size):
    """One upload whose digest is compared; the worker also loads its modules by it."""
    alphabet = bytes(range(ord("a"), ord("z") + 1))
    # A piece of body is one record, and each record begins with the first letter.
    piece = (alphabet * 1261)[: 32 * 1024]
    digest = hashlib.sha256((piece * (size // len(piece) + 1))[:size]).hexdigest()
    body = these.file("digest", f"{digest}\n".encode())
    words = [
        "--connections",
        1,
        "--requests",
        1,
        "--path",
        "/digest",
        "--post",
        size,
        "--body",
        body,
    ]
    argv = [these.load, f"unix:{running.server.socket}", *words]
    report = json.loads(
        subprocess.run(list(map(str, argv)), stdout=subprocess.PIPE, check=True).stdout
    )
    if report["requests"] != 1:
        raise Unfit(
            f"{running.server.name} does not take an upload as it is sent: {report['failed']}"
        )


def memory(running, field):
    return max(server.memory(pid, "status", field) for pid in running.workers)


def forget_peak(running):
    """Resets the peak (proc(5), clear_refs)."""
    for pid in running.workers:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
