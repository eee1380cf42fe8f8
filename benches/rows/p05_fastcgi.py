"""P5: a hello page by FastCGI, a connection for each request."""

import hello
from measure import Ratio

ID = "P5"
TITLE = f"a hello page by FastCGI, a connection a request, {hello.WHO}, requests a second"


def run(place, plan):
    """Measures the row."""
    with hello.servers(place) as running:
        loads = [hello.load(place, each, name) for name, each in running.items()]
        wsgate, uwsgi, libfcgi, flup, null = hello.take(place, plan, loads)
    ratios = [
        Ratio(wsgate, uwsgi, goal=1.25, goal_is_least=True),
        Ratio(wsgate, libfcgi, goal=0.85, goal_is_least=True),
        Ratio(wsgate, flup, goal=None, goal_is_least=True),
    ]
    return hello.result(place, ID, TITLE, ratios, [null])
