"""P12: the memory of CGI requests with Flask that are served at once."""

import contextlib
import socket
import subprocess
from dataclasses import dataclass

import peers
import process
import server
import warm
from cgi_request import BY_THE_STANDARD_LIBRARY, request
from measure import Ratio, Result, take_turns
from workplace import HERE

ID = "P12"
TITLE = (
    "PSS of 8 CGI requests with Flask that are served at once: gateways and all processes behind "
    "them"
)

TURNS = 5
REQUESTS = 8

# Limit in seconds until all requests are being served, and until they end.
TIMEOUT = 60

BODY = b"Hello World"


@dataclass(frozen=True)
class Script:
    """A CGI script whose requests wait for each other."""

    name: str
    path: object
    # The kind of process that serves it.
    process: bytes
    environment: dict
    unit: str = " MiB"

    @property
    def argv(self):
        return (self.path,)

    def expected(self):
        return (self.process, b"200 OK", BODY)


def run(place, plan):
    """Measures the row."""
    venv = peers.virtualenv(place)
    meeting = place.directory / "memory.sock"
    pools = place.directory / "run"
    application = (
        f"MEETING = {str(meeting)!r}\n{(HERE / 'apps/meeting.wsgi').read_text()}{warm.TELLS}"
    )

    def script(name, kind, file, line, more=""):
        path = place.script(file, f"#!{line}\n{application}{more}")
        return Script(name, path, kind, request(place, path) | {"WSGATE_RUNTIME_DIR": str(pools)})

    scripts = [
        script(
            "wsgate, warm",
            b"forked",
            "memory_warm.wsgi",
            f"{place.wsgate} --mode warm --venv {venv}",
        ),
        script("wsgate, cold", b"new", "memory_cold.wsgi", f"{place.wsgate} --venv {venv}"),
        script(
            "CGIHandler", b"new", "memory_cgi.py", f"{venv}/bin/python", BY_THE_STANDARD_LIBRARY
        ),
    ]
    requests = plan.size(REQUESTS, 2)
    warmed, cold, handler = take_turns(
        scripts, plan.turns(TURNS), lambda script: batch(place, script, pools, meeting, requests)
    )
    return Result(
        ID, TITLE, [Ratio(warmed, cold, goal=None), Ratio(warmed, handler, goal=None)], []
    )


def batch(place, script, pools, meeting, requests):
    """Serves `requests` at a time; returns their memory and the failures. Uses its own pool."""
    with warm.pools(place, pools):
        if script.process != b"new":
            one = process.Program(
                script.name,
                script.argv,
                script.environment | {"PATH_INFO": "/hello"},
                output=script.expected(),
                compared=warm.process_and_response,
            )
            warm.await_process(
                lambda: "\n".join(process.batch(one, 1, place.errors)[1]), script.path
            )
        return meet(place, script, pools, meeting, requests)


def meet(place, script, pools, path, requests):
    path.unlink(missing_ok=True)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(requests)
        listener.settimeout(TIMEOUT)
        gateways = [start(place, script) for _ in range(requests)]
        for gateway in gateways:
            stack.callback(end, gateway)
        guests = []
        with contextlib.suppress(TimeoutError):
            guests += [listener.accept()[0] for _ in range(requests)]
        found = None
        failures = []
        if len(guests) == requests:
            found = sum(
                server.memory(pid, "smaps_rollup", "Pss")
                for pid in everything(place, gateways, pools)
            )
        else:
            failures = ["not all requests were served at once"]
        # Requests that still connect go on when the listener is closed.
        listener.close()
        for guest in guests:
            guest.close()
        responses = [
            warm.process_and_response(gateway.communicate(timeout=TIMEOUT)[0])
            for gateway in gateways
        ]
        failures += [
            f"answered {response}" for response in responses if response != script.expected()
        ]
        return (None if failures else found), failures


def everything(place, gateways, pools):
    """The ids of gateways, supervisors, and all processes below them."""
    first = [gateway.pid for gateway in gateways] + [
        pool["pid"] for pool in warm.running(place, pools)
    ]
    return {pid for one in first for pid in server.Running(None, one).processes}


def start(place, script):
    environment = script.environment | {"PATH_INFO": "/meet"}
    return subprocess.Popen(
        list(map(str, script.argv)),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=place.errors,
    )


def end(gateway):
    gateway.kill()
    gateway.wait()
    gateway.stdout.close()
