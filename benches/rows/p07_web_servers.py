"""P7: pages behind Apache and nginx, by FastCGI, by mod_wsgi, by uWSGI's own protocol, by HTTP."""

import shlex

import behind
import wrk
from measure import Ratio, Result, take_turns

ID = "P7"
TITLE = (
    f"hello and Flask behind Apache and nginx, {wrk.CONNECTIONS} keep-alive connections of "
    f"clients, {behind.WORKERS} processes, requests a second"
)

HELD = (
    "behind Apache, `apache/proxy_fcgi.conf` evaluates two regular expressions for each "
    "request, which make SCRIPT_NAME and PATH_INFO correct at any mount point, and flushes "
    "each block of a response. mod_proxy_uwsgi and mod_wsgi do neither. Without both, a "
    "hello page was about a quarter faster."
)

TURNS = 7
# wrk takes whole seconds.
SECONDS = 2
SHORTEST = 1

PAGES = {"hello": ("hello.wsgi", b"Hello from WSGI\n"), "Flask": ("page.wsgi", b"Hello World")}

# The contenders that wsgate must beat.
TO_BEAT = ("mod_wsgi of Debian, daemon", "mod_wsgi of PyPI, daemon", "uWSGI")


def run(place, plan):
    """Measures the row."""
    those = behind.prepare(place)
    seconds = plan.size(SECONDS, SHORTEST)
    ratios = []
    beside = []
    for page, (file, content) in PAGES.items():
        body = those.these.file(f"{page}.body", content)
        contenders = those.contenders(those.these.app(file), page == "hello")
        with behind.pages(place, contenders, body, f"{page}, {{}}") as found:
            for pages in found.values():
                ours, *theirs = take_turns(
                    pages,
                    plan.turns(TURNS),
                    lambda page: wrk.batch(page, seconds),
                    # A quick run has no second turn.
                    uncounted=0 if plan.quick else 1,
                )
                nobody = [each for each in theirs if each.contender.name.startswith("nobody")]
                ratios += [against(ours, each) for each in theirs if each not in nobody]
                beside += nobody
    load = shlex.join(wrk.words("http://127.0.0.1:PORT/", seconds, "PLACE/BODY"))
    return Result(ID, TITLE, ratios, beside, notes=f"with {those.versions}; load `{load}`")


def against(ours, theirs):
    goal = 1.00 if theirs.contender.name.startswith(TO_BEAT) else None
    return Ratio(ours, theirs, goal=goal, goal_is_least=True)
