//! A machine without memory for another process (ENOMEM): each request has a valid response, the
//! log names the cause, and everything recovers when there is memory again.

use std::{
    fs,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::{
    support::{
        artefacts::gateway,
        assertions::{codes, complete_response},
        child_process::run,
        fastcgi_client::FastcgiRequest,
        install_dir::InstallDir,
        pool::PoolSetup,
        probe::Probe,
        web_servers::{eventually, source},
    },
    warm::WarmSite,
};

const HELLO: &str = "
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'hello']
    ";

/// The program that emulates the machine, by a seccomp filter.
fn emulation() -> PathBuf {
    source("tests/limits/no_memory_for_fork.py")
}

/// `command`, as a process that cannot start another. Its streams are to be set again.
fn without_memory(command: &Command) -> Command {
    let mut limited = Command::new("/usr/bin/python3");
    limited.arg(emulation()).arg(command.get_program()).args(command.get_args()).env_clear();
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.current_dir(command.get_current_dir().unwrap());
    limited
}

#[test]
fn a_request_without_memory_for_a_process_is_refused_with_the_cause() {
    for mode in ["cold", "warm", "resident"] {
        let site = WarmSite::of(mode, "", HELLO);
        let mut command = without_memory(&site.request());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let response = site.response(command.stderr(site.log_file()), "");
        let log = site.log();
        assert_eq!(complete_response(&response.raw).status, 503, "{mode}: {log}");
        // A gateway in a warm mode tries to start the pool, too.
        assert!(["W0204", "W0802"].starts_with(&codes(&log)), "{mode}: {log}");
        assert!(log.contains("(os error 12)"), "{mode}: {log}");
        assert!(log.contains("there is not enough memory: raise the limit"), "{mode}: {log}");
        assert_eq!(site.ask().text(), "hello", "{mode}: {}", site.log());
    }
}

/// The least limit of address space in bytes with which both `python3` and wsgate start.
fn least_address_space() -> u64 {
    let starts = |program: &str, args: &[&str], megabytes: u64| {
        let limit = format!("--as={}", megabytes << 20);
        let mut command = Command::new("prlimit");
        command.arg(limit).arg(program).args(args).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().success()
    };
    let wsgate = gateway().to_str().unwrap();
    let mut sizes = (4..200).filter(|&megabytes| {
        starts("/usr/bin/python3", &["-c", "pass"], megabytes)
            && starts(wsgate, &["--version"], megabytes)
    });
    sizes.next().unwrap() << 20
}

#[test]
fn a_limit_of_address_space_is_named_with_its_value_wherever_python_cannot_start() {
    let bytes = least_address_space();
    let named = format!("RLIMIT_AS: {} MB of address space for each process", bytes >> 20);
    let limited = |command: &Command| {
        let mut limited = Command::new("prlimit");
        limited.arg(format!("--as={bytes}")).arg(command.get_program()).args(command.get_args());
        limited.env_clear();
        limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        limited.current_dir(command.get_current_dir().unwrap());
        limited
    };
    for mode in ["cold", "warm", "resident"] {
        let site = WarmSite::of(mode, "", HELLO);
        let mut command = limited(&site.request());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let response = site.response(command.stderr(site.log_file()), "");
        let log = site.log();
        assert_eq!(complete_response(&response.raw).status, 500, "{mode}: {log}");
        assert!(log.contains(&named), "{mode}: {log}");
        assert!(log.contains("raise this limit (`ulimit -v`"), "{mode}: {log}");
    }
    for subcommand in ["call", "check", "fastcgi"] {
        let dir = InstallDir::new();
        let script = dir.script("site/app.wsgi", "#!WSGATE", HELLO);
        let mut command = Command::new(gateway());
        command.arg(subcommand).arg(&script).current_dir(dir.path("site")).env_clear();
        if subcommand == "fastcgi" {
            command.args(["--listen", &format!("unix:{}", dir.path("socket").display())]);
        }
        let ended = run(limited(&command).env("XDG_RUNTIME_DIR", dir.path("")), "");
        assert_eq!(ended.code(), Some(1), "{subcommand}: {}", ended.stderr);
        let said = [String::from_utf8_lossy(&ended.stdout).into_owned(), ended.stderr].concat();
        assert!(said.contains(&named), "{subcommand}: {said}");
    }
}

#[test]
fn a_limit_of_address_space_is_named_by_a_worker_without_a_supervisor() {
    let dir = InstallDir::new();
    let script = dir.script("site/app.wsgi", "#!WSGATE", HELLO);
    let least = least_address_space();
    // Python starts, and at some point has no room for the engine alone.
    let log_at = |bytes: u64| {
        let _ = fs::remove_file(dir.path("socket"));
        let socket = UnixListener::bind(dir.path("socket")).unwrap();
        let mut command = Command::new("timeout");
        command.args(["20", "prlimit", &format!("--as={bytes}")]).arg(gateway()).arg(&script);
        let output = command.stdin(OwnedFd::from(socket)).output().unwrap();
        assert!(!output.status.success(), "{output:?}");
        (bytes, String::from_utf8(output.stderr).unwrap())
    };
    let logs = (0..40).map(|step| log_at(least + (step << 18)));
    let (bytes, log) = logs.into_iter().find(|(_, log)| log.contains("error[W0206]")).unwrap();
    let named = format!("RLIMIT_AS: {} MB of address space for each process", bytes >> 20);
    assert!(log.contains(&named), "{log}");
}

#[test]
fn a_python_whose_library_finds_no_memory_is_not_called_another_program() {
    let dir = InstallDir::new();
    let words = "error while loading shared libraries: libpython3.so: failed to map segment from \
                 shared object";
    let python =
        dir.executable("python", format!("#!/bin/sh\necho 'python: {words}' >&2\nexit 127\n"));
    let response = Probe::new(HELLO).python(&python).run();
    let log = &response.log;
    assert_eq!(codes(log), ["W0205"], "{log}");
    assert!(log.contains("hint: there is not enough memory"), "{log}");
}

#[test]
fn a_pool_without_memory_for_workers_refuses_requests_until_there_is_some() {
    let setup = PoolSetup::new(&format!(
        "
    import os, runpy
    if os.path.exists(os.environ['FULL']):
        runpy.run_path({:?})['install']()
{HELLO}",
        emulation().to_str().unwrap()
    ));
    let full = setup.path("full");
    fs::write(&full, "").unwrap();
    let setup = setup.variable("FULL", full.to_str().unwrap()).args(&["--preload", "yes"]);
    let mut pool = setup.launch();
    pool.await_log("W0704");
    for number in 0..3 {
        let page = pool.ask(&FastcgiRequest::get("/")).valid();
        assert_eq!(page.status, 503, "{number}: {}", pool.log());
    }
    pool.await_log("(os error 12)");
    pool.await_log("workers cannot be forked");
    // A new template process has memory.
    fs::remove_file(full).unwrap();
    assert_eq!(pool.run_wsgate(&["reload", "app"]).code(), Some(0), "{}", pool.log());
    eventually("the pool serves", || pool.ask(&FastcgiRequest::get("/")).valid().status == 200);
    pool.stop();
}
