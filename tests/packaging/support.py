"""What the tests of `make dist` share."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ARTIFACTS = Path(os.environ["WSGATE_TEST_ARTIFACTS"])
TOOLS = Path(sys.executable).parent
SYSTEM_PYTHON = "/usr/bin/python3"
APP = """
import sys
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [sys.prefix.encode()]
"""


def artifact(pattern):
    found = list(ARTIFACTS.glob(pattern))
    assert len(found) == 1, f"{pattern}: {found}"
    return found[0]


def wheel():
    return artifact("wsgate-*-py3-none-manylinux2014_*.whl")


def files_below(directory):
    return {path.relative_to(directory) for path in directory.rglob("*")}


class Case(unittest.TestCase):
    def setUp(self):
        place = tempfile.TemporaryDirectory(prefix="wsgate-", dir="/var/tmp")
        self.addCleanup(place.cleanup)
        self.place = Path(place.name)
        # `wsgate check` looks at files as the web server's user.
        self.place.chmod(0o755)
        self.home = self.place / "home"
        self.home.mkdir()
        self.environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "WSGATE_RUNTIME_DIR": str(self.place / "run"),
        }

    def run_program(self, *command, fails=False, **variables):
        ended = subprocess.run(
            [str(word) for word in command],
            env={**self.environment, **variables},
            cwd=self.place,
            capture_output=True,
            text=True,
        )
        self.assertEqual(ended.returncode != 0, fails, f"{command}: {ended.stdout}{ended.stderr}")
        return ended

    def make_venv(self, name="venv", python=SYSTEM_PYTHON):
        self.run_program(python, "-m", "venv", self.place / name)
        return self.place / name

    def write(self, name, first_line="", code=APP):
        script = self.place / name
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(f"{first_line}\n{code}")
        script.chmod(0o755)
        return script

    def stop_pools(self, wsgate):
        for line in self.run_program(wsgate, "status", "--json").stdout.splitlines():
            self.run_program(wsgate, "stop", json.loads(line)["name"])

    def prefix_by(self, wsgate, name="site/app.wsgi", **variables):
        """The prefix of the Python that `wsgate` runs an application in."""
        return self.run_program(wsgate, "call", self.write(name), **variables).stdout
