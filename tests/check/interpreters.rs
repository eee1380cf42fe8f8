//! The interpreter of a request: a web server starts the wsgate of the `#!` line, and has other
//! variables than the person who runs the check.

use std::{
    fs::{
        Permissions, {self},
    },
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::geteuid;

use crate::{
    check::{CheckSite, HELLO, line, only_problem},
    support::{
        artefacts,
        child_process::{self},
        probe::python,
    },
};

/// A site with a script.
fn site() -> CheckSite {
    let site = CheckSite::new();
    site.dir.script("site/app.wsgi", "#!WSGATE", HELLO);
    site
}

fn make_venv(directory: &Path) {
    let mut command = Command::new(python());
    let made = command.args(["-m", "venv", "--without-pip"]).arg(directory).status();
    assert!(made.unwrap().success());
}

/// The line about the interpreter in the report of a check with the variable `name`.
#[track_caller]
fn interpreter(site: &CheckSite, (name, value): (&str, &str)) -> String {
    let ended = child_process::run(site.command(&["app.wsgi"]).env(name, value), "");
    assert_eq!(ended.code(), Some(0), "{} {}", ended.text(), ended.stderr);
    line(&ended.text(), "interpreter ").to_owned()
}

/// A directory that only the user of the tests can enter, with a python.
fn own_directory(site: &CheckSite) -> PathBuf {
    site.dir.install(&python(), "own/python3", 0o755);
    let directory = site.dir.path("own");
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
    directory
}

#[test]
fn a_python_on_path_that_the_servers_user_cannot_run_is_not_that_of_a_request() {
    let site = site();
    let path = format!("{}:/usr/bin:/bin", own_directory(&site).display());
    let found = interpreter(&site, ("PATH", &path));
    assert!(found.ends_with("/bin/python3 (the first python3 on the PATH of a web server)"));
    assert!(!found.contains("/own/"), "{found}");
    // The user of the server can run the others.
    let found = interpreter(&site, ("PATH", "/usr/bin:/bin"));
    assert_eq!(found, "/usr/bin/python3 (the first python3 on PATH)");
}

#[test]
fn a_virtualenv_of_a_variable_that_the_servers_user_cannot_run_is_not_that_of_a_request() {
    let site = site();
    make_venv(&site.dir.path("venv"));
    let expected = format!("{}/bin/python (found beside", site.dir.path("venv").display());
    let own = own_directory(&site);
    make_venv(&own.join("env"));
    // The links of a virtualenv may lead where only its user can go.
    let linked = site.dir.path("linked");
    make_venv(&linked);
    fs::remove_file(linked.join("bin/python")).unwrap();
    symlink(own.join("python3"), linked.join("bin/python")).unwrap();
    for venv in [own.join("env"), linked] {
        let found = interpreter(&site, ("VIRTUAL_ENV", venv.to_str().unwrap()));
        assert!(found.starts_with(&expected), "{}: {found}", venv.display());
    }
}

#[test]
fn the_wsgate_of_the_script_decides_which_virtualenv_is_used() {
    let site = site();
    let venv = site.dir.path("env");
    make_venv(&venv);
    site.dir.install(artefacts::gateway(), "env/bin/wsgate", 0o755);
    site.dir.install(artefacts::engine(), "env/lib/wsgate/libwsgate_engine.so", 0o755);
    site.dir.script("site/app.wsgi", &format!("#!{}/bin/wsgate", venv.display()), HELLO);
    let found = interpreter(&site, ("VIRTUAL_ENV", "/nonexistent"));
    assert_eq!(found, format!("{}/bin/python (wsgate is installed in it)", venv.display()));
}

#[test]
fn no_hint_opens_the_home_directory_of_root() {
    let is_closed = fs::metadata("/root").is_ok_and(|found| found.mode() & 0o005 == 0);
    if !geteuid().is_root() || !is_closed {
        return;
    }
    let home = tempfile::tempdir_in("/root").unwrap();
    let program = home.path().join("python3");
    let copied = Command::new("install").args([&python(), &program]).status();
    assert!(copied.unwrap().success());
    let ended = site().check(&["--python", program.to_str().unwrap(), "app.wsgi"]);
    only_problem(&ended, "hint: install what is in `/root`, the home directory of root");
    assert!(!ended.text().contains("chmod"), "{}", ended.text());
}
