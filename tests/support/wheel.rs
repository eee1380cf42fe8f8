//! The wheel of the artefacts that are tested, written as `make dist` writes it.

use std::{fs, path::Path, process::Command, sync::OnceLock};

use crate::support::{artefacts, web_servers::venv};

/// A wheel, and the name of its file, which pip reads the version from.
pub(crate) struct Wheel {
    pub(crate) name: String,
    pub(crate) content: Vec<u8>,
}

/// The wheel with the gateway and the engine of this run.
pub(crate) fn wheel() -> &'static Wheel {
    static WHEEL: OnceLock<Wheel> = OnceLock::new();
    WHEEL.get_or_init(|| {
        let directory = tempfile::TempDir::new().unwrap();
        let (stage, written) = (directory.path().join("stage"), directory.path().join("wheel"));
        fs::create_dir(&written).unwrap();
        fs::write(written.join("wsgate.cdx.json"), tool("packaging/sbom", &[])).unwrap();
        tool(
            "make",
            &[
                "install",
                &format!("GATEWAY={}", artefacts::gateway().display()),
                &format!("ENGINE={}", artefacts::engine().display()),
                &format!("HTTP={}", artefacts::http().display()),
                &format!("DESTDIR={}", stage.display()),
                "PREFIX=/usr/local",
            ],
        );
        // `tests/setup.sh` has installed the program that writes wheels there.
        let tools = venv().with_file_name("build");
        let arguments = [&stage, &written, &tools].map(|path| path.to_str().unwrap());
        tool("packaging/wheel/build", &arguments);
        let entries = fs::read_dir(written).unwrap().map(|entry| entry.unwrap().path());
        let mut wheels = entries.filter(|path| path.extension().is_some_and(|end| end == "whl"));
        let path = wheels.next().unwrap();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        Wheel { name, content: fs::read(path).unwrap() }
    })
}

/// Runs a program of the source tree, and returns its output.
#[track_caller]
fn tool(program: &str, arguments: &[&str]) -> Vec<u8> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = if program.contains('/') { tree.join(program) } else { program.into() };
    // `make test` has set variables for a make below it.
    let mut command = Command::new(path);
    for name in ["MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"] {
        command.env_remove(name);
    }
    let output = command.args(arguments).current_dir(tree).output().unwrap();
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {messages}");
    output.stdout
}
