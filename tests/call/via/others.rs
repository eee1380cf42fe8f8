//! Servers of other makes answer `--via`, too.

use std::{fs, path::PathBuf, process::Command};

use rustix::process::{Signal, geteuid};

use crate::{
    call::{Shell, via::ask},
    support::{
        child_process::{RunningProcess, piped},
        web_servers::{eventually, venv},
    },
};

/// php-fpm, under whatever version's name it is installed.
fn php_fpm() -> PathBuf {
    let found = fs::read_dir("/usr/sbin").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let mut names: Vec<_> =
        found.filter(|path| path.to_string_lossy().starts_with("/usr/sbin/php-fpm")).collect();
    names.sort();
    names.pop().expect("php-fpm: tests/setup.sh installs it")
}

/// Starts a server that listens at `app.sock`, and waits until it does.
#[track_caller]
fn start(shell: &Shell, command: &mut Command) -> RunningProcess {
    let server = RunningProcess::start(piped(command.env_clear().current_dir(shell.path(""))));
    eventually("it listens", || shell.path("app.sock").exists());
    server
}

#[test]
fn php_fpm_runs_the_file_of_script_filename_and_gets_the_body() {
    let shell = Shell::new();
    let page = shell.file(
        "page.php",
        "<?php header('Content-Type: text/plain'); http_response_code(202);
        echo $_SERVER['REQUEST_METHOD'], ' ', $_SERVER['QUERY_STRING'], ' ', \
        file_get_contents('php://input');",
    );
    let mut pool = "listen = app.sock\npm = static\npm.max_children = 1\n".to_owned();
    let is_root = geteuid().is_root();
    if is_root {
        pool.push_str("user = root\ngroup = root\n");
    }
    let settings = format!("[global]\nerror_log = /dev/stderr\ndaemonize = no\n[www]\n{pool}");
    fs::write(shell.path("fpm.conf"), settings).unwrap();
    let mut command = Command::new(php_fpm());
    command
        .args(["--no-php-ini", "--prefix"])
        .arg(shell.path(""))
        .arg("--fpm-config")
        .arg(shell.path("fpm.conf"));
    if is_root {
        command.arg("--allow-to-run-as-root");
    }
    let server = start(&shell, &mut command);
    let file = page.to_str().unwrap();
    let ended = ask(
        &shell,
        &[
            "-i",
            "--script-name",
            "/page.php",
            "--script-filename",
            file,
            "-d",
            "body",
            "/page.php?q=1",
        ],
    );
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(ended.text().starts_with("HTTP/1.1 202 "), "{}", ended.text());
    assert!(ended.text().ends_with("\r\n\r\nPOST q=1 body"), "{}", ended.text());
    server.signal(Signal::TERM);
    server.end();
}

#[test]
fn flup_runs_its_application_and_gets_the_body() {
    let shell = Shell::new();
    let program = shell.file(
        "by_flup.py",
        "
        from flup.server.fcgi import WSGIServer
        def application(environ, start_response):
            body = environ['wsgi.input'].read(int(environ['CONTENT_LENGTH']))
            start_response('202 Accepted', [('Content-Type', 'text/plain')])
            return [environ['PATH_INFO'].encode() + b' ' + body]
        WSGIServer(application, bindAddress='app.sock').run()
        ",
    );
    let server = start(&shell, Command::new(venv().join("bin/python")).arg(program));
    let ended = ask(&shell, &["-i", "-d", "body", "/path"]);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(ended.text().starts_with("HTTP/1.1 202 Accepted"), "{}", ended.text());
    assert!(ended.text().ends_with("/path body"), "{}", ended.text());
    server.signal(Signal::TERM);
    server.end();
}
