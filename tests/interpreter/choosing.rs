//! `--python`, `--venv`, `VIRTUAL_ENV`, a virtualenv beside the script or above it, else `python3`.

use std::{fs, path::Path, process::Command};

use crate::support::{
    assertions::{complete_response, only_log_message},
    child_process::run,
    install_dir::InstallDir,
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
        let dir = InstallDir::new();
        make_venv(&dir.path(venv));
        let script = dir.script(script, "#!WSGATE", PREFIX);
        let ended = run(&mut dir.request(&script), "");
        assert!(ended.text().ends_with(dir.path(venv).to_str().unwrap()), "{ended:?}");
    }
}

#[test]
fn a_virtualenv_beside_the_file_that_a_link_leads_to_is_found() {
    let dir = InstallDir::new();
    make_venv(&dir.path("project/venv"));
    dir.script("project/app.wsgi", "#!WSGATE", PREFIX);
    fs::create_dir(dir.path("cgi-bin")).unwrap();
    let link = dir.path("cgi-bin/app.wsgi");
    std::os::unix::fs::symlink(dir.path("project/app.wsgi"), &link).unwrap();
    let ended = run(&mut dir.request(&link), "");
    assert!(ended.text().ends_with("project/venv"), "{ended:?}");
}

#[test]
fn a_requested_interpreter_overrides_a_found_one() {
    let dir = InstallDir::new();
    make_venv(&dir.path("site/venv"));
    make_venv(&dir.path("other"));
    let found = dir.script("site/found.wsgi", "#!WSGATE", PREFIX);
    let asked = dir.script("site/asked.wsgi", "#!WSGATE --venv ../other", PREFIX);
    let by_python = dir.script(
        "site/python.wsgi",
        &format!("#!WSGATE --python {}", python().display()),
        PREFIX,
    );
    assert!(run(&mut dir.request(&asked), "").text().ends_with("/other"));
    let by_variable = run(dir.request(&found).env("VIRTUAL_ENV", dir.path("other")), "");
    assert!(by_variable.text().ends_with("/other"), "{by_variable:?}");
    let plain = run(&mut dir.request(&by_python), "");
    assert!(plain.text().ends_with("/usr"), "{plain:?}");
}

#[test]
fn a_virtualenv_that_anybody_could_have_made_is_not_taken_by_itself() {
    let dir = InstallDir::new();
    make_venv(&dir.path("venv"));
    assert!(
        Command::new("chown")
            .args(["-R", "12345"])
            .arg(dir.path("venv"))
            .status()
            .unwrap()
            .success()
    );
    let script = dir.script("site/app.wsgi", "#!WSGATE", PREFIX);
    let ended = run(&mut dir.request(&script), "");
    assert!(!ended.text().contains("venv"), "{ended:?}");
}

#[test]
fn a_virtualenv_that_cannot_be_used_is_named_with_the_reason() {
    for (spoil, reason, hint) in [
        ("rm -r \"$0\"", "the directory does not exist", "let --venv name a virtualenv; or create"),
        ("rm -r \"$0\" && touch \"$0\"", "not a directory", "let --venv name a virtualenv"),
        ("rm \"$0/pyvenv.cfg\"", "its pyvenv.cfg cannot be read", "or create one: python3 -m venv"),
        (
            "mv \"$0\" \"$0.x\" && mkdir \"$0\" && mv \"$0.x\" \"$0/.venv\"",
            "No such file",
            "the directory of an application; use its",
        ),
        ("ln -sf /nowhere/python3 \"$0/bin/python\"", "does not exist", "create it again"),
        ("rm \"$0/bin/python\" && touch \"$0/bin/python\"", "may not be run", "chmod o+x"),
    ] {
        let dir = InstallDir::new();
        make_venv(&dir.path("env"));
        assert!(
            Command::new("sh").args(["-c", spoil]).arg(dir.path("env")).status().unwrap().success()
        );
        let script = dir.script("site/app.wsgi", "#!WSGATE --venv ../env", PREFIX);
        let ended = run(&mut dir.request(&script), "");
        assert_eq!(complete_response(&ended.stdout).status, 500, "{spoil}");
        let message = only_log_message(&ended.stderr, "W0201");
        let shown = ended.stderr.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap();
        assert!(message.contains(reason) && shown.contains(hint), "{spoil}: {}", ended.stderr);
    }
}

#[test]
fn a_stale_variable_virtual_env_is_to_be_unset() {
    let dir = InstallDir::new();
    let script = dir.script("site/app.wsgi", "#!WSGATE", PREFIX);
    let ended = run(dir.request(&script).env("VIRTUAL_ENV", "/absent/venv"), "");
    only_log_message(&ended.stderr, "W0201");
    assert!(ended.stderr.contains("\nhint: unset VIRTUAL_ENV"), "{}", ended.stderr);
}

#[test]
fn a_virtualenv_that_this_user_cannot_enter_is_named_with_the_directory_to_open() {
    let dir = InstallDir::new();
    make_venv(&dir.path("closed/env"));
    let script = dir.script("site/app.wsgi", "#!WSGATE --venv ../closed/env", PREFIX);
    assert!(Command::new("chmod").arg("700").arg(dir.path("closed")).status().unwrap().success());
    let mut command = Command::new("setpriv");
    dir.describe(&mut command, &script);
    let ended =
        run(command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&script), "");
    let message = only_log_message(&ended.stderr, "W0201");
    assert!(message.contains("user 65534 may not enter"), "{message}");
    assert!(ended.stderr.contains("hint: let that user enter it: chmod o+x "), "{}", ended.stderr);
}

#[test]
fn a_virtualenv_of_another_version_explains_a_missing_module() {
    let dir = InstallDir::new();
    make_venv(&dir.path("env"));
    let cfg = dir.path("env/pyvenv.cfg");
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
    let script = dir.script("site/app.wsgi", "#!WSGATE --venv ../env", "import not_installed\n");
    let ended = run(&mut dir.request(&script), "");
    only_log_message(&ended.stderr, "W0302");
    assert!(
        ended.stderr.contains("was made by Python 3.4, but its python is 3."),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("/lib/python3"), "the path that was searched: {}", ended.stderr);
}

#[test]
fn python_is_found_on_the_default_path_when_the_web_server_sets_none() {
    let dir = InstallDir::new();
    let script = dir.script("site/app.wsgi", "#!WSGATE", PREFIX);
    for path in [None, Some(""), Some("bin:./bin")] {
        let mut command = dir.request(&script);
        command.env_remove("PATH");
        if let Some(path) = path {
            command.env("PATH", path);
        }
        let ended = run(&mut command, "");
        // A relative PATH names no directory that could be meant.
        let expected = if path == Some("bin:./bin") { 500 } else { 200 };
        assert_eq!(complete_response(&ended.stdout).status, expected, "{path:?} {}", ended.stderr);
    }
}
