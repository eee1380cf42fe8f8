"""P18: the memory of many pools that have no requests."""

import contextlib
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import peers
import server
import warm
import workplace
from measure import Limit, Ratio, Result, take_turns

ID = "P18"
TITLE = "private memory of an idle pool, of 200 that no request has reached for a while"

TURNS = 5
POOLS = 200

# Limit in seconds until all pools listen and have no process but their own.
TIMEOUT = 120

PHP_FPM = {"/usr/sbin/php-fpm*": "php-fpm"}


@dataclass(frozen=True)
class Pools:
    """Many idle pools of one kind."""

    name: str
    # Starts the pools: a function from their sockets to the arguments of each process.
    processes: object
    # Where sockets and configurations are.
    directory: Path
    unit: str = " MiB"

    @property
    def argv(self):
        return self.processes([self.directory / "pool0.sock"])[0]


def run(place, plan):
    """Measures the row."""
    workplace.install(PHP_FPM, missing=lambda pattern: not programs(pattern))
    these = peers.prepare(place)
    app = these.app("hello.wsgi")
    directory = place.directory / "idle"
    directory.mkdir()
    program = programs(*PHP_FPM)[-1]

    def wsgate(sockets):
        words = ("--venv", these.venv, "--max", 1, "--min", 0, "--idle", 1)
        return [
            (place.wsgate, "fastcgi", *words, "--name", path.stem, "--listen", f"unix:{path}", app)
            for path in sockets
        ]

    def uwsgi(sockets):
        for path in sockets:
            path.with_suffix(".ini").write_text(
                f"[uwsgi]\nplugin = python3\nmaster = true\nprocesses = 1\ncheap = true\n"
                f"idle = 60\nlazy-apps = true\nfastcgi-socket = {path}\nwsgi-file = {app}\n"
                f"virtualenv = {these.venv}\n"
            )
        return [("/usr/bin/uwsgi-core", "--die-on-term", "--emperor", directory)]

    def fpm(sockets):
        configuration = directory / "php-fpm.conf"
        pools = [
            f"[{path.stem}]\nuser = www-data\ngroup = www-data\nlisten = {path}\n"
            "pm = ondemand\npm.max_children = 1\n"
            for path in sockets
        ]
        configuration.write_text(
            f"[global]\nerror_log = {directory}/php-fpm.log\n" + "".join(pools)
        )
        return [(program, "--nodaemonize", "--fpm-config", configuration)]

    contenders = [
        Pools("wsgate, --min 0", wsgate, directory),
        Pools("uWSGI, emperor and cheap vassals", uwsgi, directory),
        Pools("php-fpm, ondemand", fpm, directory),
    ]
    version = program.name.removeprefix("php-fpm")
    count = plan.size(POOLS, 3)
    ours, emperor, php = take_turns(
        contenders, plan.turns(TURNS), lambda pools: batch(place, pools, directory, count)
    )
    return Result(
        ID,
        TITLE,
        [Limit(ours, goal=0.4), Ratio(ours, emperor, goal=None), Ratio(ours, php, goal=None)],
        [],
        notes=f"with {these.versions}, {peers.debian(f'php{version}-fpm')}",
    )


def programs(pattern):
    """The programs that `pattern` matches; the name of php-fpm's has its version."""
    path = Path(pattern)
    return sorted(path.parent.glob(path.name))


def batch(place, pools, directory, count):
    """Starts `count` pools; returns the private memory of each in MiB, and the failures."""
    sockets = [directory / f"pool{number}.sock" for number in range(count)]
    log = directory / "log"
    environment = server.ENVIRONMENT | {"WSGATE_RUNTIME_DIR": str(directory / "run")}
    with contextlib.ExitStack() as stack:
        stack.callback(clear, directory)
        with log.open("wb") as output:
            running = []
            for argv in pools.processes(sockets):
                process = subprocess.Popen(
                    list(map(str, argv)),
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
                running.append(server.Running(None, process.pid))
                stack.callback(server.end, process, running[-1])
        if not await_idle(place, pools, directory, sockets):
            return None, [f"not all of {count} pools are idle:\n{server.end_of(log)}"]
        processes = [pid for one in running for pid in one.processes]
        private = sum(
            server.memory(pid, "smaps_rollup", field)
            for pid in processes
            for field in ("Private_Clean", "Private_Dirty")
        )
        return private / count, []


def await_idle(place, pools, directory, sockets):
    """Waits until all pools wait for their first request; returns whether they do."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        if pools.name.startswith("wsgate"):
            idle = sum(pool["resting"] for pool in warm.running(place, directory / "run"))
        else:
            # A connection would start a worker.
            idle = sum(path.exists() for path in sockets)
        if idle == len(sockets):
            return True
        time.sleep(0.2)
    return False


def clear(directory):
    """Removes sockets and configurations, so that the emperor of the next turn starts with none."""
    for path in [*directory.glob("*.sock"), *directory.glob("*.ini")]:
        path.unlink()
