"""The wheel, in every kind of environment that Python's installers make."""

import os
import re
import unittest
import zipfile
from pathlib import Path

from support import APP, SYSTEM_PYTHON, TOOLS, Case, artifact, files_below, wheel


class Wheel(Case):
    def test_it_has_the_programs_and_their_papers(self):
        with zipfile.ZipFile(wheel()) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            names = [re.sub(r"^wsgate-[0-9.]*\.", "", name) for name in entries]
            for name in (
                "data/scripts/wsgate",
                "data/data/lib/wsgate/libwsgate_engine.so",
                "data/data/lib/wsgate/wsgate-http",
                "data/data/share/man/man1/wsgate.1",
                "data/data/share/bash-completion/completions/wsgate",
                "dist-info/licenses/LICENSE",
            ):
                self.assertIn(name, names)
            # An engine is there before its gateway.
            engine = names.index("data/data/lib/wsgate/libwsgate_engine.so")
            self.assertLess(engine, names.index("data/scripts/wsgate"))
            metadata = archive.read(next(n for n in entries if n.endswith("/METADATA"))).decode()
            bills = [name for name in entries if "/sboms/" in name]
            self.assertEqual(len(bills), 1)
            self.assertEqual(archive.read(bills[0]), artifact("*.cdx.json").read_bytes())
            gateway = next(entry for name, entry in entries.items() if "/scripts/" in name)
            self.assertEqual(archive.read(gateway)[:4], b"\x7fELF")
            http = next(entry for name, entry in entries.items() if name.endswith("/wsgate-http"))
            for program in gateway, http:
                self.assertTrue(program.external_attr >> 16 & 0o100)
        self.assertRegex(metadata, r"(?m)^License-Expression: MIT$")
        self.assertRegex(metadata, r"(?m)^Requires-Python: >=3.9$")

    def test_pip_installs_it_into_a_virtualenv_and_removes_every_file_of_it(self):
        venv = self.make_venv()
        before = files_below(venv)
        self.run_program(venv / "bin/pip", "install", "--no-index", wheel())
        self.assertEqual(self.prefix_by(venv / "bin/wsgate"), str(venv))
        self.assertTrue(os.access(venv / "lib/wsgate/wsgate-http", os.X_OK))
        for mode in "cold", "warm":
            script = self.write(f"cgi/{mode}.wsgi", f"#!{venv}/bin/wsgate --mode {mode}")
            ended = self.run_program(
                script, GATEWAY_INTERFACE="CGI/1.1", REQUEST_METHOD="GET", SERVER_NAME="localhost",
                SERVER_PORT="80", SERVER_PROTOCOL="HTTP/1.1", SCRIPT_NAME=f"/{mode}.wsgi",
                SCRIPT_FILENAME=str(script),
            )
            self.assertTrue(ended.stdout.endswith(str(venv)), ended)
        self.stop_pools(venv / "bin/wsgate")
        self.run_program(venv / "bin/pip", "uninstall", "--yes", "wsgate")
        left = files_below(venv) - before
        self.assertEqual([path for path in left if not (venv / path).is_dir()], [])

    def test_every_installer_and_every_kind_of_environment(self):
        uv, pipx = TOOLS / "uv", TOOLS / "pipx"
        offline = {"UV_OFFLINE": "1", "UV_NO_CONFIG": "1", "UV_NO_CACHE": "1"}
        with self.subTest("uv"):
            self.run_program(uv, "venv", "--python", SYSTEM_PYTHON, "of-uv", **offline)
            venv = self.place / "of-uv"
            python = venv / "bin/python"
            self.run_program(uv, "pip", "install", "--python", python, wheel(), **offline)
            self.assertEqual(self.prefix_by(venv / "bin/wsgate"), str(venv))
            self.assertTrue(os.access(venv / "lib/wsgate/wsgate-http", os.X_OK))
            self.run_program(uv, "pip", "uninstall", "--python", python, "wsgate", **offline)
            self.assertFalse((venv / "lib/wsgate/libwsgate_engine.so").exists())
        with self.subTest("uv tool"):
            tools = {"UV_TOOL_DIR": f"{self.place}/tools", "UV_TOOL_BIN_DIR": f"{self.place}/bin"}
            command = ("tool", "install", "--python", SYSTEM_PYTHON, wheel())
            self.run_program(uv, *command, **offline, **tools)
            self.check_tool(self.place / "bin/wsgate", self.place / "tools/wsgate")
        with self.subTest("pipx"):
            places = {"PIPX_HOME": f"{self.place}/pipx", "PIPX_BIN_DIR": f"{self.place}/local"}
            self.run_program(pipx, "install", "--python", SYSTEM_PYTHON, wheel(), **places)
            self.check_tool(self.place / "local/wsgate", self.place / "pipx/venvs/wsgate")
        with self.subTest("pip install --user"):
            self.run_program(
                SYSTEM_PYTHON, "-m", "pip", "install", "--no-index", "--user",
                "--break-system-packages", wheel(),
            )
            self.assertEqual(self.prefix_by(self.home / ".local/bin/wsgate"), "/usr")
            self.write_into_user_site("only_here")
            script = self.write("user.wsgi", code=f"import only_here\n{APP}")
            self.run_program(self.home / ".local/bin/wsgate", "call", script)

    def check_tool(self, wsgate, own):
        self.assertEqual(self.prefix_by(wsgate), str(own))
        project = f"project-{own.parent.name}"
        venv = self.make_venv(f"{project}/venv")
        self.assertEqual(self.prefix_by(wsgate, f"{project}/app.wsgi"), str(venv))

    def write_into_user_site(self, module):
        ask = "import site; print(site.getusersitepackages())"
        directory = Path(self.run_program(SYSTEM_PYTHON, "-c", ask).stdout.strip())
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{module}.py").write_text("")

    @unittest.skipUnless(os.geteuid() == 0, "needs root, for a mount of its own over /usr/local")
    def test_root_installs_it_into_the_python_of_the_system(self):
        steps = f"""
            set -e
            mount -t tmpfs tmpfs /usr/local
            {SYSTEM_PYTHON} -m pip install --no-index --break-system-packages {wheel()} >&2
            /usr/local/bin/wsgate call {self.write("app.wsgi")}
            {SYSTEM_PYTHON} -m pip uninstall --yes --break-system-packages wsgate >&2
            find /usr/local -type f
        """
        ended = self.run_program("unshare", "--mount", "sh", "-c", steps)
        self.assertEqual(ended.stdout, "/usr")

    def test_it_runs_in_every_python_of_this_machine(self):
        found = sorted(Path.home().glob(".pyenv/versions/3.*/bin/python"))
        for python in [Path(SYSTEM_PYTHON), *found]:
            minor = int(re.search(r"\d+\.(\d+)", self.run_program(python, "-V").stdout)[1])
            with self.subTest(python=str(python)):
                if minor >= 9:
                    venv = self.make_venv(f"venv-{minor}-{len(python.parts)}", python)
                    self.run_program(venv / "bin/pip", "install", "--no-index", wheel())
                    self.assertEqual(self.prefix_by(venv / "bin/wsgate"), str(venv))
