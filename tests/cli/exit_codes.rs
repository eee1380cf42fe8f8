//! The rule of exit codes, as a table: 2 if the command line is wrong on every machine, 78 if a
//! setting does not fit this machine or a file, 1 if the command itself failed.

use std::{fs, os::unix::net::UnixListener, process::Command};

use crate::support::{
    artefacts,
    child_process::{ExitedProcess, run},
    install_dir::InstallDir,
};

const HELLO: &str = "
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'hello']
    ";

/// A directory with applications, in which commands are run.
fn directory() -> InstallDir {
    let dir = InstallDir::new();
    dir.file("app.wsgi", HELLO);
    dir.file("raises.wsgi", "raise RuntimeError\n");
    dir.file("fails.wsgi", &HELLO.replace("200 OK", "404 Not Found"));
    dir
}

fn ended(dir: &InstallDir, args: &[&str]) -> ExitedProcess {
    let mut command = Command::new(artefacts::gateway());
    command.args(args).env_clear().env("PATH", "/usr/bin:/bin").current_dir(dir.path(""));
    command.env("WSGATE_RUNTIME_DIR", dir.path("run"));
    run(&mut command, "")
}

#[track_caller]
fn assert_codes(expected: i32, commands: &[&[&str]]) {
    let dir = directory();
    for args in commands {
        let ended = ended(&dir, args);
        assert_eq!(ended.code(), Some(expected), "{args:?}: {}", ended.stderr);
        assert!(!ended.stderr.is_empty(), "{args:?}: no message");
    }
}

#[test]
fn a_command_line_that_is_wrong_on_every_machine_is_exit_code_2() {
    const LISTEN: [&str; 3] = ["fastcgi", "--listen", "unix:a.sock"];
    assert_codes(
        2,
        &[
            &["fastcgi"],
            &["fastcgi", "--no-such-option", "app.wsgi"],
            &["fastcgi", "--listen", "unix:", "app.wsgi"],
            &["fastcgi", "--listen", "fd:9", "--listen", "fd:9", "app.wsgi"],
            &["fastcgi", "--min", "4", "--max", "2", "app.wsgi"],
            &["fastcgi", "--workers", "0", "app.wsgi"],
            &["fastcgi", "--socket-mode", "999", "app.wsgi"],
            &["fastcgi", "--socket-owner", "", "app.wsgi"],
            &["fastcgi", "--socket-owner", "daemon:", "app.wsgi"],
            &["fastcgi", "--user", "", "app.wsgi"],
            &["fastcgi", "--group", "daemon", "app.wsgi"],
            &["fastcgi", "--name", "a b", "app.wsgi"],
            &["fastcgi", "--mode", "warm", "app.wsgi"],
            &[LISTEN[0], LISTEN[1], LISTEN[2], "app.wsgi:1x"],
            &["status", "a b"],
            &["reload", "../app"],
            &["stop", ""],
            &["call", "app.wsgi", "no-target"],
            &["call", "app.wsgi", "-H", "no header"],
            &["call", "app.wsgi", "-d", "@"],
            &["call", "--via", "nowhere"],
            &["check", "--user", "", "app.wsgi"],
            &["man", "no-such-command"],
        ],
    );
}

#[test]
fn a_setting_that_does_not_fit_this_machine_or_a_file_is_exit_code_78() {
    assert_codes(
        78,
        &[
            &["fastcgi", "app.wsgi"],
            &["fastcgi", "--listen", "fd:9", "app.wsgi"],
            &["fastcgi", "--listen", "unix:absent/a.sock", "app.wsgi"],
            &["fastcgi", "--listen", "unix:app.wsgi", "app.wsgi"],
            &["fastcgi", "--listen", "192.0.2.1:9000", "app.wsgi"],
            &["fastcgi", "--listen", "unix:a.sock", "./absent.wsgi"],
            &["fastcgi", "--listen", "unix:a.sock", "--user", "no-such-user", "app.wsgi"],
            &["fastcgi", "--listen", "unix:a.sock", "--socket-owner", "no-such-user", "app.wsgi"],
            &["fastcgi", "--listen", "unix:a.sock", "--venv", "absent", "app.wsgi"],
            &["fastcgi", "--listen", "unix:a.sock", "--chdir", "absent", "app.wsgi"],
            &["fastcgi", "--listen", "unix:a.sock", "--error-log", "absent/log", "app.wsgi"],
            &["call", "./absent.wsgi"],
            &["call", "app.wsgi", "--python", "/absent"],
            &["call", "app.wsgi", "-d", "@absent"],
            &["check", "./absent.wsgi"],
            &["check", "--user", "no-such-user", "app.wsgi"],
        ],
    );
    let dir = directory();
    let mut command = Command::new(artefacts::gateway());
    command.arg("status").env_clear().env("WSGATE_RUNTIME_DIR", "relative");
    assert_eq!(run(&mut command, "").code(), Some(78));
    let _listener = UnixListener::bind(dir.path("used.sock")).unwrap();
    assert_eq!(
        ended(&dir, &["fastcgi", "--listen", "unix:used.sock", "app.wsgi"]).code(),
        Some(78)
    );
}

#[test]
fn a_command_that_failed_is_exit_code_1() {
    assert_codes(
        1,
        &[
            &["fastcgi", "--listen", "unix:a.sock", "raises.wsgi"],
            &["fastcgi", "--listen", "unix:a.sock", "absent_module"],
            &["call", "absent_module"],
            &["call", "raises.wsgi"],
            &["call", "--via", "unix:absent"],
        ],
    );
    let dir = directory();
    fs::create_dir(dir.path("run")).unwrap();
    fs::set_permissions(dir.path("run"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .unwrap();
    for args in [
        &["status", "absent"][..],
        &["reload", "absent"],
        &["stop", "absent"],
        &["check", "raises.wsgi"],
        &["call", "fails.wsgi"],
    ] {
        let ended = ended(&dir, args);
        assert_eq!(ended.code(), Some(1), "{args:?}: {}", ended.stderr);
    }
}

/// The rule stands in one page of the documents, in each man page, and in the help.
#[test]
fn the_rule_has_the_same_words_everywhere() {
    let page = fs::read_to_string(crate::support::web_servers::source("docs/errors.md")).unwrap();
    let rows = page.split("## Exit codes").nth(1).unwrap();
    let man = super::output(&["man", "fastcgi"]).replace("\\-", "-");
    let man = man.split(".SH \"EXIT STATUS\"").nth(1).unwrap();
    let help = super::output(&["--help"]);
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut count = 0;
    for row in rows.lines().filter(|line| line.starts_with("| ") && !line.contains("code |")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let (code, meaning) = (cells[0], cells[1]);
        assert!(man.contains(&format!("\\fB{code}\\fR\n{meaning}")), "{row}: {man}");
        assert!(help.contains(&format!("{code} {meaning}")), "{row}: {help}");
        count += 1;
    }
    assert_eq!(count, 6);
}
