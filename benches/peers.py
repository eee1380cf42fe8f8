"""Installs, builds and starts the FastCGI servers that wsgate is compared with, and the load.

All serve the same WSGI file in the same virtualenv, with the same number of processes, as their
documentation advises.
"""

import functools
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import workplace
from server import Server
from workplace import HERE, PYTHON, TREE, call, check

PACKAGES = {
    "/usr/bin/uwsgi-core": "uwsgi-core",
    "/usr/lib/uwsgi/plugins/python3_plugin.so": "uwsgi-plugin-python3",
    "/usr/include/fcgiapp.h": "libfcgi-dev",
}

# Packages that most rows need; `requirements.txt` has the versions.
BY_PIP = ("Flask", "flup6")

# Libraries of the C programs in `c/fastcgi`.
LIBRARIES = {"hello_fastcgi": ["-lfcgi"]}


@dataclass(frozen=True)
class Peers:
    """The installed servers."""

    place: object
    load: Path
    # The virtualenv of all servers, with Flask.
    venv: Path

    def app(self, name, **constants):
        """Copies the file `apps/NAME` beside the servers, with `constants` at its start."""
        path = self.place.directory / name
        lines = [f"{constant} = {value!r}\n" for constant, value in constants.items()]
        path.write_text("".join(lines) + (HERE / "apps" / name).read_text())
        return path

    def file(self, name, content):
        path = self.place.directory / name
        path.write_bytes(content)
        return path

    def wsgate(self, app, workers, *more):
        path = self.socket("wsgate")
        words = ("--venv", self.venv, "--workers", workers, "--listen", f"unix:{path}", *more, app)
        return Server("wsgate", (self.place.wsgate, "fastcgi", *words), path)

    def uwsgi(self, app, workers, *more, name="uWSGI", by="--fastcgi-socket"):
        """As "Things to know" and "Serializing accept()" in uWSGI's documentation advise."""
        path = self.socket(name)
        advised = (
            "--master",
            "--thunder-lock",
            "--single-interpreter",
            "--need-app",
            "--die-on-term",
        )
        words = ("--processes", workers, "--disable-logging", "--virtualenv", self.venv, *more)
        serve = (by, path, "--wsgi-file", app)
        return Server(
            name, ("/usr/bin/uwsgi-core", "--plugin", "python3", *advised, *words, *serve), path
        )

    def flup(self, app, workers):
        path = self.socket("flup6")
        program = self.app("by_flup.py")
        return Server("flup6", (self.venv / "bin/python", program, path, workers, app), path)

    def c_program(self, name, program, workers):
        path = self.socket(program)
        return Server(name, (self.place.c_program(program), path, workers), path)

    def socket(self, name):
        # Spaces and commas have a meaning in configurations.
        return self.place.directory / f"{re.sub('[ ,]+', '-', name)}.sock"

    @property
    def versions(self):
        """The versions of the servers, in a line."""
        uwsgi = call(["/usr/bin/uwsgi-core", "--version"]).stdout.decode().strip()
        return ", ".join([f"uWSGI {uwsgi}", debian("libfcgi-dev", "libfcgi"), *pinned(*BY_PIP)])


def debian(package, name=None):
    """Name of a program, and version of its package."""
    version = (
        call(["dpkg-query", "--show", "--showformat", "${Version}", package])
        .stdout.decode()
        .strip()
    )
    return f"{name or package} {version}"


def pinned(*names):
    """Packages of pip with their versions."""
    lines = [line.partition("==") for line in (HERE / "requirements.txt").read_text().splitlines()]
    return [f"{name} {version}" for name, _, version in lines if name in names]


@functools.cache
def prepare(place):
    """Installs and builds everything. The rows of a run share the result."""
    workplace.install(PACKAGES, missing=lambda path: not Path(path).exists())
    for source in (HERE / "c/fastcgi").glob("*.c"):
        program = place.c_program(source.stem)
        check(
            [
                "gcc",
                "-O2",
                "-Wall",
                "-o",
                str(program),
                str(source),
                *LIBRARIES.get(source.stem, []),
            ]
        )
    load = place.directory / "load"
    workplace.make_in_tree(["cargo", "build", "--release", "--package", "wsgate-load"])
    shutil.copy(Path(os.environ.get("CARGO_TARGET_DIR", TREE / "target")) / "release/load", load)
    return Peers(place, load, virtualenv(place))


@functools.cache
def virtualenv(place):
    """The virtualenv of all contenders, with the packages of most rows."""
    venv = place.directory / "peers"
    check([PYTHON, "-m", "venv", str(venv)])
    install_by_pip(venv, *BY_PIP)
    return venv


def install_by_pip(venv, *names):
    """Installs `names` in the versions of `requirements.txt`."""
    words = [
        "--quiet",
        "--disable-pip-version-check",
        "--constraint",
        str(HERE / "requirements.txt"),
        *names,
    ]
    check([str(venv / "bin/python"), "-m", "pip", "install", *words])
