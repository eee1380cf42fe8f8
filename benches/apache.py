"""Apache as the web server of CGI scripts, and a page that it serves as a contender."""

import contextlib
import http.client
import os
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass

import server
import warm
import workplace
from workplace import HERE

PROGRAM = "/usr/sbin/apache2"

# The user that Apache runs scripts as, if root starts it.
USER = "www-data"

# Limit of a response in seconds.
TIMEOUT = 60


@dataclass(frozen=True)
class Page:
    """A script behind Apache, and its expected response."""

    name: str
    apache: object
    script: object
    # Status and body.
    response: tuple
    # Expected header `Process`, if the script sends it.
    process: str | None = None
    # Another value of that header, for a request that does not count.
    process_besides: str | None = None
    # The path after the script's name.
    path: str = ""
    # Whether the figure is requests a second, not the median time of a batch.
    as_rate: bool = False

    @property
    def unit(self):
        return "/s" if self.as_rate else " ms"

    @property
    def argv(self):
        return ("GET", f"/cgi-bin/{self.script.name}{self.path}")


@dataclass(frozen=True)
class Running:
    """A running Apache."""

    port: int
    # Runtime directory of warm pools, and their user.
    pools: object
    user: str | None


@contextlib.contextmanager
def start(place):
    """Starts Apache with the scripts of `place`; stops it and the warm pools afterwards."""
    workplace.install({PROGRAM: "apache2"}, missing=lambda path: not os.path.exists(path))
    user = USER if os.geteuid() == 0 else None
    home = place.directory / "apache"
    home.mkdir(exist_ok=True)
    pools = home / "run"
    pools.mkdir(mode=0o700, exist_ok=True)
    if user:
        # Apache's user reads the scripts there.
        place.directory.chmod(0o755)
        shutil.chown(pools, user, user)
    port = server.free_port()
    variables = {
        "BENCH_APACHE": str(home),
        "BENCH_PLACE": str(place.directory),
        "BENCH_PORT": str(port),
    }
    words = [
        PROGRAM,
        "-f",
        str(HERE / "apache.conf"),
        "-D",
        "FOREGROUND",
        *["-D", "AsRoot"] * bool(user),
    ]
    log = home / "error.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            words,
            env=server.ENVIRONMENT | variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        server.await_listening(process, "Apache", ("127.0.0.1", port), log)
        with warm.pools(place, pools, user):
            yield Running(port, pools, user)
    finally:
        server.end(process, server.Running(None, process.pid))


def batch(page, runs):
    """Requests `page` `runs` times over one connection; returns the figure and the failures."""
    times = []
    failures = []
    client = http.client.HTTPConnection("127.0.0.1", page.apache.port, timeout=TIMEOUT)
    with contextlib.closing(client):
        client.connect()
        for _ in range(runs):
            seconds, complaint = ask(client, page)
            if complaint is not None:
                failures.append(complaint)
            elif seconds is not None:
                times.append(seconds * 1000)
    if not times:
        return None, failures
    median = statistics.median(times)
    return (1000 / median if page.as_rate else median), failures


def ask(client, page):
    """Sends one request; returns its seconds, if they count, and the fault of the response."""
    start = time.perf_counter()
    try:
        client.request("GET", f"/cgi-bin/{page.script.name}{page.path}?name=value")
        answer = client.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        client.close()
        return None, f"no response: {error!r}"
    seconds = time.perf_counter() - start
    found = (answer.status, body), answer.getheader("Process")
    if page.process_besides is not None and found == (page.response, page.process_besides):
        return None, None
    return seconds, None if found == (page.response, page.process) else f"answered {found}"[:500]


def await_process(page):
    """Requests `page` until the expected kind of process serves it."""
    warm.await_process(lambda: "\n".join(batch(page, 1)[1]), page.script)
