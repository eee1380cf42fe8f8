//! Interpreters that cannot be started, or not be used.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    guard::page,
    support::{assertions::complete_response, install_dir::InstallDir, probe::Probe},
};

const HELLO: &str = "
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'hello']
    ";

/// Interpreters of versions that are too old, as far as this machine has them.
fn too_old() -> Vec<PathBuf> {
    let Some(home) = std::env::var_os("HOME") else { return Vec::new() };
    let versions = Path::new(&home).join(".pyenv/versions");
    let Ok(found) = fs::read_dir(versions) else { return Vec::new() };
    let names = ["2.7.", "3.6.", "3.7.", "3.8."];
    let mut programs: Vec<PathBuf> = found
        .map(|entry| entry.unwrap())
        .filter(|entry| {
            names.iter().any(|name| entry.file_name().to_string_lossy().starts_with(name))
        })
        .map(|entry| entry.path().join("bin/python"))
        .filter(|program| program.exists())
        .collect();
    programs.sort();
    programs
}

#[test]
fn a_missing_interpreter_is_named() {
    let response = Probe::new(HELLO).python("/absent/python").run();
    assert!(
        page(&response, 500, "W0202").contains("`/absent/python` does not exist"),
        "{}",
        response.log
    );
    let response = Probe::new(HELLO).python("no-such-python").run();
    assert!(
        page(&response, 500, "W0202").contains("`no-such-python` is in none of the directories"),
        "{}",
        response.log
    );
}

#[test]
fn an_interpreter_that_is_no_program_is_named() {
    let dir = InstallDir::new();
    let text = dir.file("text", "no program");
    let response = Probe::new(HELLO).python(&text).run();
    assert!(page(&response, 500, "W0202").contains("may not be run"), "{}", response.log);
    let response = Probe::new(HELLO).python(dir.path("bin")).run();
    assert!(page(&response, 500, "W0202").contains("is not a program"), "{}", response.log);
    let response = Probe::new(HELLO).python(text.join("below")).run();
    assert!(page(&response, 500, "W0202").contains("cannot be accessed"), "{}", response.log);
}

#[test]
fn an_interpreter_that_the_kernel_refuses_is_named() {
    let dir = InstallDir::new();
    for (content, reason) in [
        (&b"\x7fELF for another machine"[..], "Exec format error"),
        (b"#!/absent/interpreter\n", "No such file"),
    ] {
        let program = dir.executable("broken", content);
        let response = Probe::new(HELLO).python(&program).run();
        let message = page(&response, 500, "W0204");
        assert!(
            message.contains(program.to_str().unwrap()) && message.contains(reason),
            "{message}"
        );
    }
}

#[test]
fn a_virtualenv_whose_python_was_removed_is_named_with_its_target() {
    let dir = InstallDir::new();
    let venv = dir.path("venv");
    fs::create_dir_all(venv.join("bin")).unwrap();
    fs::write(venv.join("pyvenv.cfg"), "version = 3.9.1\n").unwrap();
    std::os::unix::fs::symlink("/absent/python3.9", venv.join("bin/python")).unwrap();
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE", HELLO);
    for line in ["#!WSGATE --venv ../venv", "#!WSGATE"] {
        let script = dir.script("cgi-bin/app.wsgi", line, HELLO);
        let ended = crate::support::child_process::run(&mut dir.request(&script), "");
        assert!(
            crate::guard::page_of(&ended, 500, "W0201").contains("points to `/absent/python3.9`"),
            "{}",
            ended.stderr
        );
    }
    let mut command = dir.request(&script);
    let ended = crate::support::child_process::run(command.env("VIRTUAL_ENV", &venv), "");
    assert!(super::page_of(&ended, 500, "W0201").contains("VIRTUAL_ENV"), "{}", ended.stderr);
}

#[test]
fn a_program_that_is_no_python_is_named_with_its_exit_status() {
    let dir = InstallDir::new();
    for (body, how) in [
        ("exit 0", "exited with status 0"),
        ("exit 3", "exited with status 3"),
        ("kill -9 $$", "was killed by SIGKILL"),
        ("kill -15 $$", "was killed by SIGTERM"),
        ("echo Status: 200 OK; echo; echo evil", "exited with status 0"),
    ] {
        let program = dir.executable("python", format!("#!/bin/sh\n{body}\n"));
        let response = Probe::new(HELLO).python(&program).run();
        let message = page(&response, 500, "W0205");
        assert!(
            message.contains(how)
                && message.contains(
                    "before the engine was \
            loaded"
                ),
            "{message}"
        );
    }
}

#[test]
fn the_message_of_a_failing_interpreter_is_in_the_log() {
    let dir = InstallDir::new();
    let program =
        dir.executable("python", "#!/bin/sh\necho 'on stdout'\necho 'on stderr' >&2\nexit 1\n");
    let response = Probe::new(HELLO).python(&program).run();
    page(&response, 500, "W0205");
    assert!(response.log.starts_with("on stdout\non stderr\nwsgate: error"), "{}", response.log);
}

#[test]
fn an_interpreter_that_does_not_get_ready_in_time_is_answered_with_504() {
    let dir = InstallDir::new();
    let program = dir.executable("python", "#!/bin/sh\nsleep 1000\n");
    let response = Probe::new(HELLO)
        .python(&program)
        .options(&["--timeout", "1"])
        .variable("MARK", program.to_str().unwrap())
        .run();
    page(&response, 504, "W0604");
    crate::guard::nothing_is_left_of(&format!("MARK={}", program.display()));
}

#[test]
fn a_version_that_is_too_old_is_named_with_the_least() {
    for program in too_old() {
        let response = Probe::new(HELLO).python(&program).run();
        let message = page(&response, 500, "W0206");
        assert!(message.contains("is too old, 3.9 is the least"), "{message}");
        assert!(message.contains(program.to_str().unwrap()), "{message}");
    }
}

#[test]
fn with_debug_the_error_page_shows_the_log_message() {
    let response = Probe::new(HELLO).python("/absent/python").options(&["--debug"]).run();
    assert!(
        String::from_utf8(complete_response(&response.raw).body)
            .unwrap()
            .contains("/absent/python"),
        "{response:?}"
    );
}
