"""P11: the gateway's own start, to a usage error and out."""

from measure import Ratio, Result, take_turns
from process import Program, batch

ID = "P11"
TITLE = "start, one error message on standard error, exit"

TURNS = 25
RUNS = 100

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/home/user", "LANG": "C.UTF-8"}


def run(place, plan):
    """Measures the row."""
    contenders = [
        Program("wsgate", (place.wsgate, "--no-such-option"), ENVIRONMENT, status=2),
        Program("C program", (place.c_program("hello"), "--no-such-option"), ENVIRONMENT, status=2),
        Program("null C program", (place.c_program("null"),), ENVIRONMENT),
    ]
    wsgate, hello, null = take_turns(
        contenders, plan.turns(TURNS), lambda program: batch(program, plan.runs(RUNS), place.errors)
    )
    return Result(ID, TITLE, [Ratio(wsgate, hello, goal=1.30)], [null])
