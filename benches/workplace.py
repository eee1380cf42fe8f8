"""The directory of a run: wsgate, a clean virtualenv and the compiled C programs.

Each run creates it and removes it at the end. Missing packages are installed by apt.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
TREE = HERE.parent
PYTHON = "/usr/bin/python3"

# Not /tmp, which may be in memory or forbid to execute programs.
PARENT = "/var/tmp"


class Unfit(Exception):
    """The reason why nothing can be measured here."""


@dataclass(frozen=True)
class Place:
    """The directory in which contenders start."""

    directory: Path
    # Standard error of contenders.
    errors: object

    @property
    def wsgate(self):
        """The gateway, installed with its engine."""
        return self.directory / "bin/wsgate"

    @property
    def venv(self):
        return self.directory / "venv"

    @property
    def python(self):
        """The virtualenv's Python."""
        return self.venv / "bin/python"

    def c_program(self, name):
        """A compiled program of `benches/c`."""
        return self.directory / name

    def script(self, name, text):
        """Writes an executable file."""
        path = self.directory / name
        path.write_text(text)
        path.chmod(0o755)
        return path


@contextlib.contextmanager
def make():
    """Creates the directory and its contents."""
    install({"gcc": "gcc"}, missing=lambda program: shutil.which(program) is None)
    install(
        {"ensurepip": "python3-venv"},
        missing=lambda module: call([PYTHON, "-c", f"import {module}"]).returncode,
    )
    with tempfile.TemporaryDirectory(
        prefix="wsgate-bench-", dir=PARENT
    ) as name, tempfile.TemporaryFile() as errors:
        place = Place(Path(name), errors)
        build(place)
        for source in (HERE / "c").glob("*.c"):
            check(["gcc", "-O2", "-Wall", "-o", str(place.c_program(source.stem)), str(source)])
        check([PYTHON, "-m", "venv", "--without-pip", str(place.venv)])
        forget(place.directory)
        os.chdir(place.directory)
        yield place
        os.chdir(TREE)


def install(packages, missing):
    """Installs the packages of missing things."""
    wanted = [package for thing, package in packages.items() if missing(thing)]
    if not wanted:
        return
    become_root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    words = [
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "install",
        "--yes",
        "--no-install-recommends",
        *wanted,
    ]
    try:
        # If the update fails, the present lists may do.
        subprocess.run(
            [*become_root, "apt-get", "update", "--quiet"], stdout=sys.stderr, check=False
        )
        with no_services(become_root):
            subprocess.run([*become_root, *words], stdout=sys.stderr, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        by_hand = f"`apt-get install --no-install-recommends {' '.join(wanted)}` as root"
        raise Unfit(
            f"{' and '.join(wanted)} cannot be installed: {error}\nhint: {by_hand}, then again"
        ) from error


@contextlib.contextmanager
def no_services(become_root):
    """Prevents packages from starting services, which would take ports and processor time."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    subprocess.run(
        [*become_root, "tee", policy],
        input=b"#!/bin/sh\nexit 101\n",
        stdout=subprocess.DEVNULL,
        check=True,
    )
    try:
        subprocess.run([*become_root, "chmod", "755", policy], check=True)
        yield
    finally:
        subprocess.run([*become_root, "rm", "-f", policy], check=False)


def build(place):
    """Builds and installs the tree, as a user does."""
    make_in_tree(
        [
            "make",
            "--no-print-directory",
            "build",
            "install",
            f"PREFIX={place.directory}",
            "DESTDIR=",
        ]
    )


def make_in_tree(words):
    """Runs a build in the tree."""
    # The output of the build is not part of the table.
    if subprocess.run(words, cwd=TREE, stdout=sys.stderr, check=False).returncode != 0:
        raise Unfit("the tree does not build")


def forget(directory):
    """Makes the kernel read the files in `directory` from disk again, as after a boot.

    The kernel keeps a new file in larger pages, from which programs start faster.
    """
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def check(words):
    done = call(words)
    if done.returncode != 0:
        raise Unfit(f"`{' '.join(words)}` failed:\n{done.stdout.decode('utf-8', 'replace')}")


def call(words):
    try:
        return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    except OSError as error:
        raise Unfit(f"`{words[0]}` cannot be run: {error}") from error
