//! Compiled modules are kept even for users who cannot write beside the sources.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use crate::support::{child_process::run, install_dir::InstallDir, probe::python};

const APP: &str = "
    import helper
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [helper.__cached__.encode()]
    ";

/// Files below a directory whose name ends so.
fn files_below(directory: &Path, suffix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_below(&path, suffix));
        } else if path.to_string_lossy().ends_with(suffix) {
            found.push(path.to_string_lossy().into_owned());
        }
    }
    found
}

/// A command that runs `script` as a user who owns nothing here.
fn as_nobody(dir: &InstallDir, script: &Path) -> std::process::Command {
    let mut command = std::process::Command::new("setpriv");
    dir.describe(&mut command, script);
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(script);
    command
}

fn site() -> (InstallDir, std::path::PathBuf) {
    let dir = InstallDir::new();
    let line = format!("#!WSGATE --python {}", python().display());
    let script = dir.script("site/app.wsgi", &line, APP);
    dir.file("site/helper.py", "x = 1\n");
    (dir, script)
}

#[test]
fn modules_are_cached_for_a_user_who_cannot_write_beside_them() {
    let (dir, script) = site();
    let rooms = dir.path("rooms");
    fs::create_dir(&rooms).unwrap();
    fs::set_permissions(&rooms, fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = as_nobody(&dir, &script);
    command.env("WSGATE_RUNTIME_DIR", rooms.join("nobody"));
    let ended = run(&mut command, "");
    let cached = files_below(&rooms, ".pyc");
    assert!(
        cached.iter().any(|file| file.contains("/nobody/pycache/") && file.contains("helper.")),
        "{cached:?} {ended:?}"
    );
    assert!(ended.text().contains("/nobody/pycache/"), "{ended:?}");
    assert!(!dir.path("site/__pycache__").exists());
}

#[test]
fn modules_are_cached_beside_their_sources_by_a_user_who_can() {
    let (dir, script) = site();
    let ended = run(&mut dir.request(&script), "");
    assert!(ended.text().contains("site/__pycache__/helper."), "{ended:?}");
    assert_eq!(files_below(&dir.path("site/__pycache__"), ".pyc").len(), 1);
}

#[test]
fn a_directory_that_another_user_could_have_made_is_not_used() {
    let (dir, script) = site();
    for mode in [0o777, 0o750] {
        let taken = dir.path("taken");
        fs::create_dir_all(&taken).unwrap();
        fs::set_permissions(&taken, fs::Permissions::from_mode(mode)).unwrap();
        let mut command = as_nobody(&dir, &script);
        command.env("WSGATE_RUNTIME_DIR", &taken);
        let ended = run(&mut command, "");
        assert_eq!(ended.code(), Some(0), "{ended:?}");
        assert_eq!(files_below(&taken, ".pyc"), Vec::<String>::new(), "{mode:o}");
    }
}

#[test]
fn a_symbolic_link_instead_of_the_directory_is_not_followed() {
    let (dir, script) = site();
    let elsewhere = dir.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o777)).unwrap();
    std::os::unix::fs::symlink(&elsewhere, dir.path("link")).unwrap();
    let mut command = as_nobody(&dir, &script);
    command.env("WSGATE_RUNTIME_DIR", dir.path("link"));
    assert_eq!(run(&mut command, "").code(), Some(0));
    assert_eq!(files_below(&elsewhere, ".pyc"), Vec::<String>::new());
}

#[test]
fn a_script_does_not_take_the_cache_of_a_module_of_the_same_name() {
    let dir = InstallDir::new();
    let line = format!("#!WSGATE --python {}", python().display());
    let code = "
        import app
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [app.NAME.encode()]
        ";
    let script = dir.script("site/app.wsgi", &line, code);
    dir.file("site/app.py", "NAME = 'the module'\n");
    for _ in 0..2 {
        let ended = run(&mut dir.request(&script), "");
        assert!(ended.text().ends_with("the module"), "{ended:?}");
    }
}
