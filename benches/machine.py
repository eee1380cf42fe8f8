"""The machine of a run, in a few lines."""

import datetime
import os
import platform
from pathlib import Path

import workplace


def describe(place, command):
    """The lines above a table."""
    return f"machine: {', '.join([*facts(place), load()])}\ncommand: {command}"


def facts(place):
    """Processor, system, versions and date."""
    kernel = f"{platform.system()} {platform.release()}"
    code = "import platform; print(platform.python_version())"
    python = f"Python {first_line([str(place.python), '-c', code])}"
    return [processor(), system(), kernel, python, first_line(["rustc", "--version"]), today()]


def system():
    return platform.freedesktop_os_release().get("PRETTY_NAME", "an unknown system")


def load():
    return f"load {os.getloadavg()[0]:.1f} at the start"


def processor():
    """Model, and the number of cores for this process."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {len(os.sched_getaffinity(0))} cores"


def today():
    return datetime.date.today().isoformat()


def first_line(words):
    return workplace.call(words).stdout.decode().partition("\n")[0]
