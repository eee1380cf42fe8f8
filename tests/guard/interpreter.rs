//! Interpreters that cannot be started, or not be used.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    guard::page,
    support::{
        assertions::complete_response,
        install_dir::InstallDir,
        probe::{Probe, python},
    },
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
    // As venv links them.
    std::os::unix::fs::symlink("/absent/python3.9", venv.join("bin/python3")).unwrap();
    std::os::unix::fs::symlink("python3", venv.join("bin/python")).unwrap();
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

/// Programs that are no Python interpreter, or not one that can be used: the program, its code, and
/// what the message says.
#[test]
fn each_program_that_cannot_run_the_engine_is_named_with_the_reason() {
    let dir = InstallDir::new();
    let python = python();
    // A Python that pretends to be another one.
    let pretending = |change: &str| {
        let python = python.display();
        format!(
            "{python} -c \"import sys; {change}; sys.argv[:] = sys.argv[1:]; exec(sys.argv[0])\" \
                 \"$2\" \"$3\" \"$4\" \"$5\""
        )
    };
    let too_old = pretending("sys.version_info = (3, 8, 1, 'final', 0)");
    let python_2 = pretending("sys.version_info = (2, 7, 18, 'final', 0)");
    let other = pretending("sys.implementation.name = 'pypy'");
    let broken = format!("[ \"$1\" = --version ] && exec {} --version\nexit 1", python.display());
    let no_python = "is not a Python interpreter: it ";
    for (name, body, code, said) in [
        ("exits", "exit 0", "W0202", &[no_python, "exited with status 0"][..]),
        ("fails", "exit 3", "W0202", &[no_python, "exited with status 3"]),
        ("killed", "kill -9 $$", "W0202", &[no_python, "was killed by SIGKILL"]),
        ("stopped", "kill -15 $$", "W0202", &[no_python, "was killed by SIGTERM"]),
        ("prints", "echo Status: 200 OK; echo; echo evil", "W0202", &[no_python]),
        ("ls", "exec /bin/ls \"$@\"", "W0202", &[no_python, "exited with status 2"]),
        ("broken", &broken, "W0205", &["exited with status 1", "before the engine was loaded"]),
        ("too-old", &too_old, "W0206", &["Python 3.8 is too old, need 3.9 or later"]),
        ("python2", &python_2, "W0206", &["Python 2.7 is too old"]),
        ("pypy", &other, "W0206", &["pypy is not CPython"]),
    ] {
        let program = dir.executable(name, format!("#!/bin/sh\n{body}\n"));
        let response = Probe::new(HELLO).python(&program).run();
        let message = page(&response, 500, code);
        for words in said {
            assert!(message.contains(words), "{name}: no {words}: {message}");
        }
        assert!(message.contains(program.to_str().unwrap()), "{name}: {message}");
        // The code of wsgate that the program got is not in the log.
        assert!(!response.log.contains("ExtensionFileLoader"), "{name}: {}", response.log);
    }
}

#[test]
fn the_message_of_a_failing_interpreter_is_in_the_log() {
    let dir = InstallDir::new();
    let program =
        dir.executable("python", "#!/bin/sh\necho 'on stdout'\necho 'on stderr' >&2\nexit 1\n");
    let response = Probe::new(HELLO).python(&program).run();
    page(&response, 500, "W0202");
    assert!(response.log.starts_with("on stdout\non stderr\nwsgate: error"), "{}", response.log);
}

#[test]
fn an_interpreter_that_does_not_get_ready_in_time_is_answered_with_504() {
    let dir = InstallDir::new();
    let version = format!("[ \"$1\" = --version ] && exec {} --version", python().display());
    for (name, before, code) in [("no-python", "", "W0202"), ("python", &*version, "W0205")] {
        let program = dir.executable(name, format!("#!/bin/sh\n{before}\nsleep 1000\n"));
        let response = Probe::new(HELLO)
            .python(&program)
            .options(&["--timeout", "1"])
            .variable("MARK", program.to_str().unwrap())
            .run();
        let message = page(&response, 504, code);
        assert!(message.contains("has not loaded the engine within "), "{message}");
        crate::guard::nothing_is_left_of(&format!("MARK={}", program.display()));
    }
}

#[test]
fn a_version_that_is_too_old_is_named_with_the_least() {
    for program in too_old() {
        let response = Probe::new(HELLO).python(&program).run();
        let message = page(&response, 500, "W0206");
        assert!(message.contains("is too old, need 3.9 or later"), "{message}");
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
