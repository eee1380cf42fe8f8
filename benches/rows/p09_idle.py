"""P9: the cost of idle keep-alive connections for live traffic."""

import resource

import hello
import peers
import server
from measure import Ratio

ID = "P9"
TITLE = f"a connection a request, {hello.WHO}, beside 1,000 idle keep-alive connections, p99"

IDLE = 1000

# A percentile of short turns drifts more than a rate: many of them.
TURNS = 31
SECONDS = 0.5


def run(place, plan):
    """Measures the row."""
    # Both ends of every connection need a descriptor, each in its process.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    these = peers.prepare(place)
    figure = {"figure": "p99", "unit": " µs"}
    with server.start(place, these.wsgate(these.app("hello.wsgi"), hello.WORKERS)) as running:
        idle = plan.size(IDLE, 20)
        beside = hello.load(place, running, f"wsgate, {idle} idle", "--idle", idle, **figure)
        alone = hello.load(place, running, "wsgate, none", **figure)
        beside, alone = hello.take(place, plan, [beside, alone], TURNS, SECONDS)
    return hello.result(place, ID, TITLE, [Ratio(beside, alone, goal=1.20)], [])
