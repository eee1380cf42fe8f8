"""Upgrades to another build, while requests are served."""

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import zipfile

from support import APP, Case, wheel


def another_build(directory):
    """The wheel of a later version, whose gateway and engine are of another build."""
    with zipfile.ZipFile(wheel()) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    version = wheel().name.split("-")[1]
    later = f"{version}.post1"
    build = re.compile(re.escape(version).encode() + rb"\+([0-9a-f]{16})")
    ids = {found for entry, content in entries for found in build.findall(content)}
    assert len(ids) == 1, ids
    other = ids.pop()[::-1]
    path = directory / wheel().name.replace(version, later)
    lines = []
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in entries:
            entry.filename = entry.filename.replace(f"wsgate-{version}", f"wsgate-{later}")
            content = build.sub(version.encode() + b"+" + other, content)
            if entry.filename.endswith("/METADATA"):
                content = content.replace(*(f"Version: {v}".encode() for v in (version, later)))
            if entry.filename.endswith("/RECORD"):
                content = "".join([*lines, f"{entry.filename},,\n"]).encode()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode()
            lines.append(f"{entry.filename},sha256={digest.rstrip('=')},{len(content)}\n")
            archive.writestr(entry, content)
    return path


class Requests:
    """Requests, one after the other, until the block ends."""

    def __init__(self, make):
        self.make, self.failures, self.count, self.ends = make, [], 0, False
        self.threads = [threading.Thread(target=self.repeat) for _ in range(3)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ends = True
        for thread in self.threads:
            thread.join()

    def repeat(self):
        while not self.ends:
            failure = self.make()
            self.count += 1
            if failure:
                self.failures.append(failure)

    def await_more(self, count):
        until = self.count + count
        deadline = time.monotonic() + 60
        while self.count < until:
            assert time.monotonic() < deadline, "no response for a minute"
            time.sleep(0.01)


class Upgrade(Case):
    def setUp(self):
        super().setUp()
        self.venv = self.make_venv()
        self.run_program(self.venv / "bin/pip", "install", "--no-index", wheel())

    def upgrade(self):
        old = self.build()
        later = another_build(self.place)
        self.run_program(self.venv / "bin/pip", "install", "--no-index", "--upgrade", later)
        self.assertNotEqual(self.build(), old)

    def build(self, venv=None):
        wsgate = (venv or self.venv) / "bin/wsgate"
        said = self.run_program(wsgate, "check", self.write("build.wsgi", f"#!{wsgate}"))
        return re.search(r"(?m)^engine .* build (\S+)$", said.stdout)[1]

    def cgi(self, script):
        """One CGI request. Gives what was wrong with the response."""
        ended = subprocess.run(
            [script],
            env={
                **self.environment, "GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET",
                "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1",
                "SCRIPT_NAME": "/app.wsgi", "SCRIPT_FILENAME": str(script),
            },
            capture_output=True,
            text=True,
        )
        is_whole = ended.stdout.startswith("Status: 200") and ended.stdout.endswith("served")
        return "" if is_whole else f"{ended.stdout}{ended.stderr}"

    def pools(self, venv=None):
        status = self.run_program((venv or self.venv) / "bin/wsgate", "status", "--json").stdout
        return [json.loads(line)["pid"] for line in status.splitlines()]

    def serve_fastcgi(self, code):
        """A pool of the script `app.wsgi` with two workers, and a function that requests it once.

        Gives the pool, its log, the function, and the bodies of the responses.
        """
        script = self.write("app.wsgi", code=code)
        address = f"unix:{self.place}/app.sock"
        wsgate = self.venv / "bin/wsgate"
        command = [wsgate, "fastcgi", script, "--listen", address, "--workers", "2"]
        if os.geteuid() == 0:
            command += ["--user", "root"]
        log = self.place / "log"
        with log.open("w") as messages:
            pool = subprocess.Popen(command, env=self.environment, stderr=messages)
        self.addCleanup(pool.wait)
        self.addCleanup(pool.kill)
        # The gateway that asks must not be the one that pip replaces.
        shutil.copytree(self.venv / "bin", self.place / "other/bin", symlinks=True)
        ask = [self.place / "other/bin/wsgate", "call", "--via", address, "/"]
        responses = []

        def request():
            ended = subprocess.run(ask, env=self.environment, capture_output=True, text=True)
            responses.append(ended.stdout)
            is_whole = ended.stdout.endswith(str(self.venv)) and ended.returncode == 0
            return "" if is_whole else f"{ended.stdout}{ended.stderr}{log.read_text()}"

        self.await_truth("the pool serves", lambda: request() == "")
        return pool, log, request, responses

    def test_a_fastcgi_pool_serves_on_and_reloads(self):
        code = 'import sys\nAPP = "old"\n' + APP.replace("sys.prefix", '(APP + " " + sys.prefix)')
        pool, log, request, responses = self.serve_fastcgi(code)
        with Requests(request) as requests:
            requests.await_more(20)
            self.upgrade()
            requests.await_more(20)
            self.write("app.wsgi", code=code.replace('"old"', '"new"'))
            pool.send_signal(signal.SIGHUP)
            self.await_truth("the new code serves", lambda: responses[-1].startswith("new "))
            requests.await_more(20)
        self.assertEqual(requests.failures, [])
        self.assertIn("W0713", log.read_text())

    def test_a_fastcgi_pool_changes_to_the_build_that_pip_has_installed(self):
        pool, log, request, _ = self.serve_fastcgi(APP)
        old = self.status()
        with Requests(request) as requests:
            requests.await_more(20)
            self.upgrade()
            requests.await_more(20)
            self.assertEqual(self.status()["build"], old["build"])
            self.run_program(self.venv / "bin/wsgate", "reload", "--binary", "app")
            requests.await_more(20)
            new = self.status()
        print(f"{requests.count} requests", end=" ")
        self.assertEqual(requests.failures, [])
        self.assertEqual(new["build"], self.build())
        self.assertNotEqual(new["build"], old["build"])
        self.assertEqual((new["pid"], new["pid"]), (old["pid"], pool.pid))
        self.assertFalse({worker["pid"] for worker in new["workers"]}
                         & {worker["pid"] for worker in old["workers"]})
        self.assertIn("W0727", log.read_text())

    def status(self):
        """The status of the pool `app`."""
        status = self.run_program(self.venv / "bin/wsgate", "status", "--json", "app").stdout
        return json.loads(status)

    def await_truth(self, what, is_so):
        deadline = time.monotonic() + 60
        while not is_so():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.01)

    def serve_warm(self, wsgate, options=""):
        code = APP.replace("sys.prefix", '"served"')
        script = self.write("app.wsgi", f"#!{wsgate} --mode warm {options}", code)
        self.assertEqual(self.cgi(script), "")
        self.await_truth("a pool runs", lambda: self.cgi(script) == "" and self.pools())
        return script

    def test_a_link_that_leads_to_another_virtualenv_fails_no_cgi_request(self):
        current = self.place / "current"
        current.symlink_to("venv")
        script = self.serve_warm(current / "bin/wsgate", "--warm-idle 1")
        old = self.pools()
        later = self.make_venv("later")
        newer = another_build(self.place)
        self.run_program(later / "bin/pip", "install", "--no-index", newer)
        with Requests(lambda: self.cgi(script)) as requests:
            requests.await_more(20)
            (self.place / "next").symlink_to("later")
            (self.place / "next").rename(current)
            self.await_truth("another pool serves", lambda: set(self.pools(later)) - set(old))
            self.await_truth("the old pool exits", lambda: not set(self.pools(later)) & set(old))
            requests.await_more(20)
        self.assertEqual(requests.failures, [])
        self.stop_pools(later / "bin/wsgate")

    def test_pip_upgrades_below_warm_pools(self):
        script = self.serve_warm(self.venv / "bin/wsgate")
        old = self.pools()
        not_started = []

        def request():
            try:
                failure = self.cgi(script)
            except OSError as error:
                # pip removes the gateway and writes another. Meanwhile nobody can start it.
                failure = error
            # One that has just started may find no engine any more.
            if isinstance(failure, OSError) or "error[W0203]" in failure:
                not_started.append(failure)
                return ""
            return failure

        with Requests(request) as requests:
            requests.await_more(20)
            self.upgrade()
            not_started_by_upgrade = len(not_started)
            self.await_truth("the old pool exits", lambda: not set(self.pools()) & set(old))
            requests.await_more(20)
        print(f"{requests.count} requests, {len(not_started)} could not start wsgate", end=" ")
        self.assertEqual(requests.failures, [])
        self.assertEqual(len(not_started), not_started_by_upgrade)
        self.stop_pools(self.venv / "bin/wsgate")
