"""A web server in front of a contender: started with a file of `fronts/`, awaited, ended."""

import contextlib
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import server
from workplace import HERE, TREE

# How each web server is started with a configuration, in the foreground.
PROGRAMS = {
    "Apache": lambda file: ("/usr/sbin/apache2", "-f", file, "-D", "FOREGROUND", *as_root("-D", "AsRoot")),
    "nginx": lambda file: ("/usr/sbin/nginx", "-c", file),
}


@dataclass(frozen=True)
class Front:
    """A web server, and what is put into its configuration."""

    # One of `PROGRAMS`.
    program: str
    # The contender's; unique among those of its program.
    name: str
    # The file of `fronts/` with what the contender needs, without `.conf`.
    site: str
    values: dict


@dataclass(frozen=True)
class Running:
    """A web server that runs."""

    argv: tuple
    port: int
    log: Path


def as_root(*words):
    return words if os.geteuid() == 0 else ()


@contextlib.contextmanager
def start(place, front):
    """Starts `front` and waits until it listens; ends it afterwards."""
    home = place.directory / "fronts" / re.sub("[ ,]+", "-", f"{front.program}-{front.name}")
    home.mkdir(parents=True, exist_ok=True)
    port = server.free_port()
    log = home / "error.log"
    values = {"HOME": home, "LOG": log, "PORT": port, "TREE": TREE, **front.values}
    site = fill(f"{front.program.lower()}/{front.site}", home, values)
    main = fill(front.program.lower(), home, {**values, "SITE": site})
    argv = PROGRAMS[front.program](str(main))
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv, env=server.ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        server.await_listening(process, f"{front.program} for {front.name}", ("127.0.0.1", port), log)
        yield Running(argv, port, log)
    finally:
        server.end(process, server.Running(None, process.pid))


def fill(name, home, values):
    """Writes the file `fronts/NAME.conf` into `home` with `values` in the place of what stands between two @."""
    text = (HERE / "fronts" / f"{name}.conf").read_text()
    path = home / f"{name.replace('/', '-')}.conf"
    path.write_text(re.sub(r"@([A-Z]+)@", lambda match: str(values[match[1]]), text))
    return path
