"""P2: a CGI request that a forked process serves, which has the application loaded."""

import re

import apache
import process
import warm
from cgi_request import request, status_and_body
from measure import Ratio, Result, take_turns
from workplace import TREE

ID = "P2"
TITLE = (
    "a hello page by warm CGI, a forked process for the request: whole process, and behind Apache, "
    "p50"
)

HELD = (
    "behind Apache, both contenders start a program for the request. wsgate then wakes "
    "another process, and forks the next one beside it, which takes as long as the request "
    "itself."
)

TURNS = 25
RUNS = 50

BODY = b"Hello from WSGI\n"


def run(place, plan):
    """Measures the row."""
    application = re.sub(r"\A#!.*\n", "", (TREE / "cgi-bin/hello.wsgi").read_text())
    ours = place.script(
        "warm.wsgi", f"#!{place.wsgate} --mode warm --venv {place.venv}\n{application}{warm.TELLS}"
    )
    theirs = place.c_program("hello")
    pools = place.directory / "run"
    environment = request(place, ours) | {"WSGATE_RUNTIME_DIR": str(pools)}
    forked = {"output": (b"forked", b"200 OK", BODY), "compared": warm.process_and_response}
    response = {"output": (b"200 OK", BODY), "compared": status_and_body}
    programs = [
        process.Program("wsgate, warm", (ours,), environment, **forked),
        process.Program("C CGI", (theirs,), request(place, theirs), **response),
        process.Program("null C program", (place.c_program("null"),), request(place, ours)),
    ]
    with warm.pools(place, pools), apache.start(place) as running:
        pages = [
            apache.Page("wsgate, warm, Apache", running, ours, (200, BODY), process="forked"),
            apache.Page("C CGI, Apache", running, theirs, (200, BODY)),
        ]
        warm.await_process(lambda: "\n".join(process.batch(programs[0], 1, place.errors)[1]), ours)
        apache.await_process(pages[0])

        def batch(contender):
            if isinstance(contender, apache.Page):
                return apache.batch(contender, plan.runs(RUNS))
            return process.batch(contender, plan.runs(RUNS), place.errors)

        alone, c_alone, null, behind, c_behind = take_turns(
            [*programs, *pages], plan.turns(TURNS), batch
        )
    return Result(
        ID, TITLE, [Ratio(alone, c_alone, goal=3.00), Ratio(behind, c_behind, goal=1.70)], [null]
    )
