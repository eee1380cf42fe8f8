//! `--error-log` on the `#!` line: messages and output of requests go to the file, in every mode
//! alike, and a request is served whatever the file is.

use std::{
    fs::{self, Permissions},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{PermissionsExt as _, symlink},
            net::UnixListener,
        },
    },
    process::Command,
};

use rustix::process::Signal;

use crate::{
    support::{
        assertions::{codes, first_line},
        child_process::{RunningProcess, piped},
        install_dir::InstallDir,
        web_servers::eventually,
    },
    warm::WarmSite,
};

/// Writes in every way that ends in the log, and raises an exception at `/raises`.
const WRITES: &str = "
    import logging, os, subprocess, sys
    def application(environ, start_response):
        print('by print')
        print('to wsgi.errors, \\u00e9', file=environ['wsgi.errors'])
        print('to sys.stderr', file=sys.stderr)
        os.write(2, b'to descriptor 2\\n')
        subprocess.run(['/bin/sh', '-c', 'echo by a program >&2'])
        logging.warning('by logging')
        if environ['PATH_INFO'] == '/raises':
            1 / 0
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'served']
    ";

/// The lines of a log without what differs between requests, such as the time.
fn lines(log: &str) -> String {
    let is_same = |line: &&str| !line.starts_with("request: ") && !line.contains("W07");
    let lines = log.lines().filter(is_same).map(|line| first_line(line).unwrap_or(line));
    let lines: Vec<&str> = lines.collect();
    lines.join("\n")
}

/// The log of two requests in `mode`, the second of which fails.
fn log_in(mode: &str) -> String {
    let site = WarmSite::of(mode, "--error-log ../private/error.log", WRITES);
    let log = site.path("private/error.log");
    fs::create_dir(log.parent().unwrap()).unwrap();
    assert_eq!(site.ask().text(), "served");
    if mode != "cold" {
        site.await_pools(1);
    }
    fs::write(&log, "").unwrap();
    assert_eq!(site.ask().text(), "served");
    let failed = site.response(site.request().env("PATH_INFO", "/raises"), "");
    assert!(failed.status.starts_with("500"), "{failed:?}");
    assert_eq!(site.log(), "", "{mode}: nothing goes to the web server's log");
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600, "{mode}");
    fs::read_to_string(log).unwrap().replace(&site.path("").display().to_string(), "SITE/")
}

#[test]
fn the_file_has_the_same_lines_in_every_mode() {
    let cold = log_in("cold");
    assert_eq!(codes(&cold), ["W0501"], "{cold}");
    for way in
        ["print", "wsgi.errors, é", "sys.stderr", "descriptor 2", "a program", "WARNING:root:by"]
    {
        assert!(cold.contains(way), "{way}: {cold}");
    }
    for mode in ["warm", "resident"] {
        assert_eq!(lines(&log_in(mode)), lines(&cold), "{mode}");
    }
}

#[test]
fn a_file_that_cannot_be_opened_costs_a_warning_and_no_response() {
    for mode in ["cold", "warm"] {
        for file in ["missing/error.log", ".", "pipe"] {
            let site = WarmSite::of(mode, &format!("--error-log {file}"), WRITES);
            let status = Command::new("mkfifo").arg(site.path("site/pipe")).status();
            assert!(status.unwrap().success());
            let response = site.ask();
            assert_eq!(response.text(), "served", "{mode} {file}");
            assert_eq!(codes(&response.log)[0], "W0106", "{mode} {file}: {}", response.log);
            assert!(response.log.contains("to wsgi.errors"), "{mode} {file}: {}", response.log);
        }
    }
}

#[test]
fn a_link_that_another_user_may_have_made_is_not_followed() {
    for mode in ["cold", "warm"] {
        for (permissions, is_followed) in [(0o1777, false), (0o777, false), (0o775, true)] {
            let site = WarmSite::of(mode, "--error-log ../logs/error.log", WRITES);
            let (logs, target) = (site.path("logs"), site.path("target"));
            fs::create_dir(&logs).unwrap();
            symlink(&target, logs.join("error.log")).unwrap();
            fs::set_permissions(&logs, Permissions::from_mode(permissions)).unwrap();
            let response = site.ask();
            assert_eq!(response.text(), "served", "{mode}");
            assert_eq!(target.exists(), is_followed, "{mode} {permissions:o}: {}", response.log);
            let is_named = response.log.contains("a symbolic link, in a directory where every");
            assert_eq!(is_named, !is_followed, "{mode} {permissions:o}: {}", response.log);
        }
    }
}

#[test]
fn a_new_file_below_a_document_root_has_a_warning_once() {
    let site = WarmSite::of("cold", "--error-log error.log", WRITES);
    for _ in 0..2 {
        let mut request = site.request();
        request.env("DOCUMENT_ROOT", "/").env("CONTEXT_DOCUMENT_ROOT", site.path("site"));
        assert_eq!(site.response(&mut request, "").text(), "served");
    }
    let log = fs::read_to_string(site.path("site/error.log")).unwrap();
    assert_eq!(codes(&log), ["W0107"], "{log}");
}

#[test]
fn a_worker_that_a_web_server_starts_writes_to_the_file_of_its_script() {
    let dir = InstallDir::new();
    let script = dir.script("app.wsgi", "#!WSGATE --error-log error.log", "application = None\n");
    let listener = UnixListener::bind(dir.path("socket")).unwrap();
    let mut command = dir.request(&script);
    command.env_remove("GATEWAY_INTERFACE");
    let running = RunningProcess::start(piped(&mut command).stdin(OwnedFd::from(listener)));
    let log = dir.path("error.log");
    eventually("the log is open", || log.exists());
    running.signal(Signal::TERM);
    assert_eq!(running.end().stderr, "");
}

#[test]
fn a_pool_writes_to_the_file_of_its_script_unless_its_command_names_another() {
    let dir = InstallDir::new();
    let code = "def application(environ, start_response): pass\n";
    let script = dir.script("app.wsgi", "#!WSGATE --error-log of_script.log", code);
    for (args, file) in
        [(&[][..], "of_script.log"), (&["--error-log", "of_command.log"][..], "of_command.log")]
    {
        let mut command = Command::new(dir.wsgate());
        command.args(["fastcgi", "--listen", "unix:socket", "--workers", "1"]).args(args);
        command.arg(&script).current_dir(dir.path("")).env("WSGATE_RUNTIME_DIR", dir.path("run"));
        let running = RunningProcess::start(piped(&mut command));
        eventually("the pool serves", || {
            fs::read_to_string(dir.path(file)).is_ok_and(|log| log.contains("W0710"))
        });
        running.signal(Signal::TERM);
        running.end();
        fs::remove_file(dir.path(file)).unwrap();
    }
    assert!(!dir.path("of_script.log").exists() && !dir.path("of_command.log").exists());
}
