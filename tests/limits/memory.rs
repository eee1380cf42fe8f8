//! A machine without memory for another process (ENOMEM): each request has a valid response, the
//! log names the cause, and everything recovers when there is memory again.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::{
    support::{
        assertions::{codes, complete_response},
        fastcgi_client::FastcgiRequest,
        pool::PoolSetup,
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
