//! `--python`, `--venv`, `VIRTUAL_ENV`, a virtualenv beside the script or above it, else `python3`.

use std::{fs, path::Path, process::Command};

use crate::support::{
    assertions::{only_entry, whole},
    child_process::run,
    install_dir::Place,
    probe::python,
};

const PREFIX: &str = "
    import sys
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [sys.prefix.encode()]
    ";

/// A virtualenv of the python that is tested.
pub(crate) fn make_venv(at: &Path) {
    let status =
        Command::new(python()).args(["-m", "venv", "--without-pip"]).arg(at).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_virtualenv_beside_the_script_or_above_it_is_found() {
    for (venv, script) in [
        ("site/venv", "site/app.wsgi"),
        ("site/.venv", "site/app.wsgi"),
        ("venv", "site/public/cgi/app.wsgi"),
    ] {
        let place = Place::new();
        make_venv(&place.path(venv));
        let script = place.script(script, "#!WSGATE", PREFIX);
        let ended = run(&mut place.request(&script), "");
        assert!(ended.text().ends_with(place.path(venv).to_str().unwrap()), "{ended:?}");
    }
}

#[test]
fn a_virtualenv_beside_the_file_that_a_link_leads_to_is_found() {
    let place = Place::new();
    make_venv(&place.path("project/venv"));
    place.script("project/app.wsgi", "#!WSGATE", PREFIX);
    fs::create_dir(place.path("cgi-bin")).unwrap();
    let link = place.path("cgi-bin/app.wsgi");
    std::os::unix::fs::symlink(place.path("project/app.wsgi"), &link).unwrap();
    let ended = run(&mut place.request(&link), "");
    assert!(ended.text().ends_with("project/venv"), "{ended:?}");
}

#[test]
fn a_requested_interpreter_overrides_a_found_one() {
    let place = Place::new();
    make_venv(&place.path("site/venv"));
    make_venv(&place.path("other"));
    let found = place.script("site/found.wsgi", "#!WSGATE", PREFIX);
    let asked = place.script("site/asked.wsgi", "#!WSGATE --venv ../other", PREFIX);
    let by_python = place.script(
        "site/python.wsgi",
        &format!("#!WSGATE --python {}", python().display()),
        PREFIX,
    );
    assert!(run(&mut place.request(&asked), "").text().ends_with("/other"));
    let by_variable = run(place.request(&found).env("VIRTUAL_ENV", place.path("other")), "");
    assert!(by_variable.text().ends_with("/other"), "{by_variable:?}");
    let plain = run(&mut place.request(&by_python), "");
    assert!(plain.text().ends_with("/usr"), "{plain:?}");
}

#[test]
fn a_virtualenv_that_anybody_could_have_made_is_not_taken_by_itself() {
    let place = Place::new();
    make_venv(&place.path("venv"));
    assert!(
        Command::new("chown")
            .args(["-R", "12345"])
            .arg(place.path("venv"))
            .status()
            .unwrap()
            .success()
    );
    let script = place.script("site/app.wsgi", "#!WSGATE", PREFIX);
    let ended = run(&mut place.request(&script), "");
    assert!(!ended.text().contains("venv"), "{ended:?}");
}

#[test]
fn a_virtualenv_that_cannot_be_used_is_named_with_the_reason() {
    for (spoil, reason) in [
        ("rm -r \"$0\"", "there is no such directory"),
        ("rm \"$0/pyvenv.cfg\"", "its pyvenv.cfg cannot be read"),
        ("ln -sf /nowhere/python3 \"$0/bin/python\"", "which is not there any more"),
        ("rm \"$0/bin/python\" && touch \"$0/bin/python\"", "may not be run"),
    ] {
        let place = Place::new();
        make_venv(&place.path("env"));
        assert!(
            Command::new("sh")
                .args(["-c", spoil])
                .arg(place.path("env"))
                .status()
                .unwrap()
                .success()
        );
        let script = place.script("site/app.wsgi", "#!WSGATE --venv ../env", PREFIX);
        let ended = run(&mut place.request(&script), "");
        assert_eq!(whole(&ended.stdout).status, 500, "{spoil}");
        assert!(only_entry(&ended.stderr, "W0201").contains(reason), "{reason}: {}", ended.stderr);
    }
}

#[test]
fn a_virtualenv_that_this_user_cannot_enter_is_named_with_the_directory_to_open() {
    let place = Place::new();
    make_venv(&place.path("closed/env"));
    let script = place.script("site/app.wsgi", "#!WSGATE --venv ../closed/env", PREFIX);
    assert!(Command::new("chmod").arg("700").arg(place.path("closed")).status().unwrap().success());
    let mut command = Command::new("setpriv");
    place.describe(&mut command, &script);
    let ended =
        run(command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&script), "");
    let entry = only_entry(&ended.stderr, "W0201");
    assert!(entry.contains("user 65534 may not enter"), "{entry}");
    assert!(ended.stderr.contains("hint: let that user in: chmod o+x "), "{}", ended.stderr);
}

#[test]
fn a_virtualenv_of_another_version_explains_a_missing_module() {
    let place = Place::new();
    make_venv(&place.path("env"));
    let cfg = place.path("env/pyvenv.cfg");
    let changed: String = fs::read_to_string(&cfg)
        .unwrap()
        .lines()
        .map(|line| {
            if line.starts_with("version") {
                "version = 3.4.1\n".to_owned()
            } else {
                format!("{line}\n")
            }
        })
        .collect();
    fs::write(cfg, changed).unwrap();
    let script = place.script("site/app.wsgi", "#!WSGATE --venv ../env", "import not_installed\n");
    let ended = run(&mut place.request(&script), "");
    only_entry(&ended.stderr, "W0302");
    assert!(
        ended.stderr.contains("was made by Python 3.4, but its python is 3."),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("/lib/python3"), "the path that was searched: {}", ended.stderr);
}

#[test]
fn python_is_found_on_the_default_path_when_the_web_server_sets_none() {
    let place = Place::new();
    let script = place.script("site/app.wsgi", "#!WSGATE", PREFIX);
    for path in [None, Some(""), Some("bin:./bin")] {
        let mut command = place.request(&script);
        command.env_remove("PATH");
        if let Some(path) = path {
            command.env("PATH", path);
        }
        let ended = run(&mut command, "");
        // A relative PATH names no directory that could be meant.
        let expected = if path == Some("bin:./bin") { 500 } else { 200 };
        assert_eq!(whole(&ended.stdout).status, expected, "{path:?} {}", ended.stderr);
    }
}
