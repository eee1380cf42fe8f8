"""A FastCGI server as a contender: start, readiness, processes, stop."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from workplace import Unfit

# Limit of a server's start in seconds.
TIMEOUT = 60

# Seconds from SIGTERM to SIGKILL. Some servers ignore SIGTERM while they start.
GRACE = 3

# The whole environment of each server.
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


@dataclass(frozen=True)
class Server:
    """A server, and how to start it."""

    name: str
    argv: tuple
    socket: Path


@dataclass(frozen=True)
class Running:
    """A running server."""

    server: Server
    pid: int

    @property
    def processes(self):
        """The ids of all its processes, the parent first."""
        found = [self.pid]
        for pid in found:
            found += children(pid)
        return found

    @property
    def workers(self):
        """The ids of the processes that serve requests: those without children."""
        return [pid for pid in self.processes if not children(pid)]


@contextlib.contextmanager
def start(place, server, umask=-1):
    """Starts `server` and waits until it listens; stops all its processes afterwards.

    `umask` is the umask of its processes, or -1 for this process's.
    """
    environment = ENVIRONMENT | {
        "WSGATE_RUNTIME_DIR": str(place.directory / "run"),
        "HOME": str(place.directory),
    }
    log = place.directory / f"{server.name}.log"
    server.socket.unlink(missing_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(map(str, server.argv)),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            umask=umask,
        )
    running = Running(server, process.pid)
    try:
        await_listening(process, f"`{server.name}`", str(server.socket), log)
        yield running
    finally:
        end(process, running)


def free_port():
    """A free TCP port of the loopback interface."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def await_listening(process, what, address, log):
    """Waits until `process` listens at `address`, the path of a Unix socket or host and port."""
    deadline = time.monotonic() + TIMEOUT
    while not listens(address):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.01)
        if process.returncode is not None or time.monotonic() > deadline:
            raise Unfit(f"{what} does not listen at {address}:\n{end_of(log)}")


def end_of(log):
    return log.read_text("utf-8", "replace")[-2000:]


def listens(address):
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as client:
        return client.connect_ex(address) == 0


def end(process, running):
    """Stops the server as its user would, and kills the processes that are left."""
    # A process id may be reused after the process has exited; a pidfd is not.
    watched = []
    for pid in running.processes:
        with contextlib.suppress(ProcessLookupError):
            watched.append(os.pidfd_open(pid))
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=GRACE)
    # The parent first, so that it starts no new process.
    for pidfd in watched:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        select.select([pidfd], [], [])
        os.close(pidfd)
    process.wait()


def children(pid):
    """The ids of the children of all threads of `pid`; none if it has exited."""
    found = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, tasks.read_text().split())
    return found


def memory(pid, file, field):
    """A figure of `/proc/PID/FILE` in MiB."""
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) / 1024
    raise KeyError(field)
