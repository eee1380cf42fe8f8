"""P6: a hello page by FastCGI over keep-alive connections."""

import hello
from measure import Ratio

ID = "P6"
TITLE = f"a hello page by FastCGI, keep-alive connections, {hello.WHO}, requests a second"

HELD = (
    "a turn has one of two speeds, of which one is half the other, with the C program too. "
    "Presumably the kernel runs a client and its server process on one processor or on two, "
    "and waking another processor is expensive in a virtual machine. A request takes three "
    "system calls (`epoll_pwait`, `recvfrom`, `sendto`) where libfcgi, which waits for one "
    "connection only, takes two, and Python takes time that a C program does not."
)

# Closes the connection after each request, whatever the web server requests.
CLOSES = "uWSGI"


def run(place, plan):
    """Measures the row."""
    with hello.servers(place) as running:
        loads = [
            (
                hello.load(place, each, f"{name}, a connection a request")
                if name == CLOSES
                else hello.load(place, each, name, "--keep")
            )
            for name, each in running.items()
        ]
        wsgate, uwsgi, libfcgi, flup, null = hello.take(place, plan, loads)
    ratios = [
        Ratio(wsgate, uwsgi, goal=2.50, goal_is_least=True),
        Ratio(wsgate, libfcgi, goal=0.80, goal_is_least=True),
        Ratio(wsgate, flup, goal=None, goal_is_least=True),
    ]
    return hello.result(place, ID, TITLE, ratios, [null])
