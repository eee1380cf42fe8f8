//! The interpreters of this machine, one for each version of Python.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::support::probe::Probe;

/// Versions that are promised to work.
const VERSIONS: [&str; 5] = ["3.9", "3.10", "3.11", "3.12", "3.13"];

/// An interpreter for each version that was found.
#[expect(clippy::print_stdout, reason = "what was tested is for the log of a test run")]
pub(super) fn pythons() -> &'static BTreeMap<String, PathBuf> {
    static FOUND: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut found = BTreeMap::new();
        for program in candidates() {
            if let Some(version) =
                version_of(&program).filter(|version| VERSIONS.contains(&version.as_str()))
            {
                found.entry(version).or_insert(program);
            }
        }
        let missing: Vec<&str> =
            VERSIONS.into_iter().filter(|&version| !found.contains_key(version)).collect();
        println!("found {found:?}, missing {missing:?}");
        assert!(!found.is_empty(), "no interpreter was found");
        let must_be_complete = env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(!must_be_complete || missing.is_empty(), "missing: {missing:?}");
        found
    })
}

fn candidates() -> Vec<PathBuf> {
    if let Some(named) = env::var_os("WSGATE_TEST_PYTHONS") {
        return env::split_paths(&named).collect();
    }
    let root = env::var_os("PYENV_ROOT").map(PathBuf::from);
    let root = root.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".pyenv")));
    let installed = root.and_then(|root| fs::read_dir(root.join("versions")).ok());
    let mut programs: Vec<PathBuf> = installed
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin/python3"))
        .collect();
    programs.sort();
    let path = env::var_os("PATH").unwrap_or_default();
    for directory in env::split_paths(&path) {
        programs.extend(VERSIONS.map(|version| directory.join(format!("python{version}"))));
    }
    programs.retain(|program| program.is_file());
    programs
}

/// `major.minor` of an interpreter that works.
fn version_of(program: &Path) -> Option<String> {
    // A build without the global lock is another interpreter.
    let print = "import sys; print('t' in sys.abiflags or '%d.%d' % sys.version_info[:2])";
    let output = Command::new(program).args(["-c", print]).env_clear().output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Asks the application in `code` on every version, after `prepare`.
#[track_caller]
pub(super) fn on_each(
    code: &str,
    prepare: impl Fn(Probe) -> Probe,
    assert: impl Fn(&str, &crate::support::probe::CgiResponse),
) {
    for (version, program) in pythons() {
        let response = prepare(Probe::new(code).python(program)).run();
        assert(version, &response);
    }
}
