"""A web server with a contender behind it, configured by a file of `web_servers/`."""

import contextlib
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import server
from workplace import HERE, TREE

# The command of each web server with a configuration, in the foreground.
PROGRAMS = {
    "Apache": lambda file: (
        "/usr/sbin/apache2",
        "-f",
        file,
        "-D",
        "FOREGROUND",
        *as_root("-D", "AsRoot"),
    ),
    "nginx": lambda file: ("/usr/sbin/nginx", "-c", file),
}


@dataclass(frozen=True)
class WebServer:
    """A web server, and the values of its configuration."""

    # One of `PROGRAMS`.
    program: str
    # The contender's name; unique for each program.
    name: str
    # The contender's file of `web_servers/`, without `.conf`.
    site: str
    values: dict


@dataclass(frozen=True)
class Running:
    """A running web server."""

    argv: tuple
    port: int
    log: Path


def as_root(*words):
    return words if os.geteuid() == 0 else ()


@contextlib.contextmanager
def start(place, web_server):
    """Starts `web_server` and waits until it listens; stops it afterwards."""
    home = (
        place.directory
        / "web_servers"
        / re.sub("[ ,]+", "-", f"{web_server.program}-{web_server.name}")
    )
    home.mkdir(parents=True, exist_ok=True)
    port = server.free_port()
    log = home / "error.log"
    values = {"HOME": home, "LOG": log, "PORT": port, "TREE": TREE, **web_server.values}
    site = fill(f"{web_server.program.lower()}/{web_server.site}", home, values)
    main = fill(web_server.program.lower(), home, {**values, "SITE": site})
    argv = PROGRAMS[web_server.program](str(main))
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv, env=server.ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        server.await_listening(
            process, f"{web_server.program} for {web_server.name}", ("127.0.0.1", port), log
        )
        yield Running(argv, port, log)
    finally:
        server.end(process, server.Running(None, process.pid))


def fill(name, home, values):
    """Copies `web_servers/NAME.conf` into `home`, with `values` for names between two @."""
    text = (HERE / "web_servers" / f"{name}.conf").read_text()
    path = home / f"{name.replace('/', '-')}.conf"
    path.write_text(re.sub(r"@([A-Z]+)@", lambda match: str(values[match[1]]), text))
    return path
