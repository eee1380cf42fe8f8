"""P4: a page of Flask by CGI, from a process that stays."""

import apache
import peers
import warm
from measure import Ratio, Result, take_turns
from workplace import HERE

ID = "P4"
TITLE = (
    "a page of Flask by resident CGI behind Apache, one after the other over a keep-alive "
    "connection, p50"
)

HELD = (
    "Flask itself takes nearly half a millisecond for the page (P7), the C program nothing. "
    "wsgate also starts a program for the request, as the C program does, and wakes another "
    "process."
)

TURNS = 25
RUNS = 50


def run(place, plan):
    """Measures the row."""
    venv = peers.virtualenv(place)
    application = (HERE / "apps/page.wsgi").read_text() + warm.TELLS
    ours = place.script(
        "resident.wsgi",
        f"#!{place.wsgate} --mode resident --warm-up / --venv {venv}\n{application}",
    )
    with apache.start(place) as running:
        pages = [
            # The first request of a process does not count.
            apache.Page(
                "wsgate, resident",
                running,
                ours,
                (200, b"Hello World"),
                process="kept",
                process_besides="forked",
                path="/",
            ),
            apache.Page("C CGI", running, place.c_program("hello"), (200, b"Hello from WSGI\n")),
        ]
        apache.await_process(pages[0])
        resident, c_program = take_turns(
            pages, plan.turns(TURNS), lambda page: apache.batch(page, plan.runs(RUNS))
        )
    return Result(ID, TITLE, [Ratio(resident, c_program, goal=1.50)], [])
