"""Puts the files of an installation into the wheel.

WSGATE_STAGE names a directory that `make stage` has filled. Without it, as when pip builds from an
sdist, the hook runs `make stage` itself.
"""

import os
import platform
import re
import subprocess
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# The tag of manylinux2014 stands for this glibc.
MANYLINUX2014 = (2, 17)


class CustomBuildHook(BuildHookInterface):
    def initialize(self, version, build_data):
        if self.target_name != "wheel":
            return
        stage = os.environ.get("WSGATE_STAGE")
        if not stage:
            self.made = tempfile.TemporaryDirectory(prefix="wsgate-stage-")
            stage = self.made.name
            subprocess.run(["make", "stage", f"STAGE={stage}"], cwd=self.root, check=True)
        installed = Path(stage) / "usr/local"
        for program in sorted((installed / "bin").iterdir()):
            build_data["shared_scripts"][str(program)] = program.name
        for directory in "lib/wsgate", "share":
            for file in sorted((installed / directory).rglob("*")):
                if file.is_file():
                    build_data["shared_data"][str(file)] = str(file.relative_to(installed))
        build_data["sbom_files"] += os.environ.get("WSGATE_SBOM", "").split()
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(self.root, installed)}"

    def finalize(self, version, build_data, artifact_path):
        if hasattr(self, "made"):
            self.made.cleanup()


def platform_tag(root, installed):
    """Where the wheel can be installed, by the glibc that its engine needs."""
    command = [Path(root) / "packaging/linkage", installed]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    print(said, end="")
    glibc = re.search(r"needs glibc (\d+)\.(\d+)", said)
    # The gateway, and wsgate-http.
    is_static = said.count(": linked statically with musl") == 2
    if is_static and tuple(map(int, glibc.groups())) <= MANYLINUX2014:
        return f"manylinux2014_{platform.machine()}"
    return f"linux_{platform.machine()}"
