"""P1: a CGI request in a new interpreter, from the start of the process to its end."""

import re

from cgi_request import BY_THE_STANDARD_LIBRARY, request, status_and_body
from measure import Ratio, Result, take_turns
from process import Program, batch
from workplace import TREE

ID = "P1"
TITLE = "a hello page by CGI, a new interpreter for the request, whole process"

TURNS = 25
RUNS = 10


def run(place, plan):
    """Measures the row."""
    hello = (TREE / "cgi-bin/hello.wsgi").read_text()
    application = re.sub(r"\A#!.*\n", "", hello)
    ours = place.script("hello.wsgi", f"#!{place.wsgate} --venv {place.venv}\n{application}")
    theirs = place.script(
        "hello_cgi.py", f"#!{place.python}\n{application}{BY_THE_STANDARD_LIBRARY}"
    )
    response = (b"200 OK", b"Hello from WSGI\n")
    contenders = [
        Program("wsgate", (ours,), request(place, ours), output=response, compared=status_and_body),
        Program(
            "CGIHandler",
            (theirs,),
            request(place, theirs),
            output=response,
            compared=status_and_body,
        ),
        Program("python -c pass", (place.python, "-c", "pass"), request(place, ours)),
        Program("null C program", (place.c_program("null"),), request(place, ours)),
    ]
    wsgate, handler, python, null = take_turns(
        contenders, plan.turns(TURNS), lambda program: batch(program, plan.runs(RUNS), place.errors)
    )
    return Result(
        ID, TITLE, [Ratio(wsgate, handler, goal=0.80), Ratio(wsgate, python, goal=1.25)], [null]
    )
