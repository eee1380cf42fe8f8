"""The archive, the checksums and the bill of materials."""

import json
import shutil
import tarfile

from support import ARTIFACTS, Case, artifact


class OtherArtifacts(Case):
    def test_the_archive_is_installed_by_copying_its_files(self):
        with tarfile.open(artifact("wsgate-*-linux-*.tar.gz")) as archive:
            owners = {(entry.uid, entry.gid, entry.mtime) for entry in archive}
            self.assertEqual(len(owners), 1, owners)
            archive.extractall(self.place)
        [unpacked] = self.place.glob("wsgate-*")
        self.assertLessEqual(len((unpacked / "README").read_text().splitlines()), 5)
        for name in "bin/wsgate", "lib/wsgate/wsgate-http", "lib/wsgate/libwsgate_engine.so":
            (self.home / "wsgate" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(unpacked / name, self.home / "wsgate" / name)
        self.assertEqual(self.prefix_by(self.home / "wsgate/bin/wsgate"), "/usr")

    def test_the_sums_are_those_of_all_files(self):
        sums = ARTIFACTS / "SHA256SUMS"
        self.run_program("sh", "-c", f"cd {ARTIFACTS} && sha256sum --check --strict --quiet {sums}")
        listed = {line.split()[1] for line in sums.read_text().splitlines()}
        self.assertEqual(listed, {path.name for path in ARTIFACTS.iterdir()} - {"SHA256SUMS"})

    def test_the_bill_of_materials_is_valid_and_lists_what_is_linked(self):
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator

        bill = artifact("*.cdx.json").read_text()
        self.assertIsNone(JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill))
        names = {part["name"] for part in json.loads(bill)["components"]}
        linked = {"wsgate-engine", "pyo3", "rustix", "clap", "dlmalloc", "hyper"}
        self.assertLessEqual(linked, names)
        self.assertEqual(names & {"proptest", "wsgate-load", "serde_derive", "syn"}, set())
