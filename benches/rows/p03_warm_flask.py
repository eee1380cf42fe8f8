"""P3: a page of Flask by CGI, from a forked process or from a new one."""

import apache
import peers
import warm
from cgi_request import BY_THE_STANDARD_LIBRARY
from measure import Ratio, Result, take_turns
from workplace import HERE

ID = "P3"
TITLE = (
    "a page of Flask by CGI behind Apache, a forked process for the request, one after the other, "
    "by the median time"
)

HELD = (
    "a process that was just forked shares the memory of what Flask has loaded. Its one "
    "request writes to some 4 MB of that, since Python counts references there, and the "
    "kernel copies each page. wsgate does that ahead, but the next request waits for it "
    "where requests come one right after the other. Without `--warm-up`, Flask does at each "
    "request what it would do once."
)

TURNS = 15
# A new process that imports Flask takes a good part of a second.
RUNS = 10


def run(place, plan):
    """Measures the row."""
    venv = peers.virtualenv(place)
    application = (HERE / "apps/page.wsgi").read_text() + warm.TELLS
    words = f"#!{place.wsgate} --mode warm --venv {venv}"
    ours = place.script("flask.wsgi", f"{words}\n{application}")
    ahead = place.script("flask_ahead.wsgi", f"{words} --warm-up /\n{application}")
    theirs = place.script(
        "flask_cgi.py", f"#!{venv}/bin/python\n{application}{BY_THE_STANDARD_LIBRARY}"
    )
    with apache.start(place) as running:
        response = (200, b"Hello World")
        pages = [
            apache.Page(
                "wsgate, warm, --warm-up",
                running,
                ahead,
                response,
                process="forked",
                path="/",
                as_rate=True,
            ),
            apache.Page(
                "wsgate, warm", running, ours, response, process="forked", path="/", as_rate=True
            ),
            apache.Page(
                "CGIHandler", running, theirs, response, process="new", path="/", as_rate=True
            ),
        ]
        for page in pages[:2]:
            apache.await_process(page)
        ahead, warmed, handler = take_turns(
            pages, plan.turns(TURNS), lambda page: apache.batch(page, plan.runs(RUNS))
        )
    ratios = [
        Ratio(ahead, handler, goal=30.0, goal_is_least=True),
        Ratio(warmed, handler, goal=None, goal_is_least=True),
    ]
    return Result(ID, TITLE, ratios, [])
