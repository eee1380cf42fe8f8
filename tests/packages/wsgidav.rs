//! WsgiDAV under litmus, the test suite for WebDAV servers.
//!
//! Locks and properties are in files of `shelve`, which are written when they are closed: one
//! process at a time may have them open. cheroot, which is one process, passes all tests.

use std::process::Command;

use crate::support::{
    child_process::{RunningProcess, piped},
    web_servers::{Apache, ApacheSetup, CgiModule, HttpClient, Nginx, WebServer, WebSite},
};

/// The suites, and how many tests each has.
const SUITES: [(&str, usize); 5] =
    [("basic", 16), ("copymove", 13), ("props", 30), ("locks", 41), ("http", 4)];

#[test]
fn litmus_passes_in_a_pool() {
    litmus_passes(&Nginx::with_words(&["--workers", "1", "--threads", "4"]));
}

#[test]
fn litmus_passes_in_cold_mode() {
    litmus_passes(&Apache::with(CgiModule::Cgid));
}

#[test]
fn litmus_passes_warm() {
    litmus_passes(&Apache::start(
        CgiModule::Cgid,
        ApacheSetup::ScriptAlias,
        WebSite::of_mode("warm"),
    ));
}

#[test]
fn litmus_passes_resident() {
    let web_server =
        Apache::start(CgiModule::Cgid, ApacheSetup::ScriptAlias, WebSite::of_mode("resident"));
    // Only locks are state between two requests. The other suites run in warm mode.
    run_suites(&web_server, &SUITES[3..4]);
}

fn litmus_passes(web_server: &dyn WebServer) {
    run_suites(web_server, &SUITES);
}

fn run_suites(web_server: &dyn WebServer, suites: &[(&str, usize)]) {
    let url = web_server.script("wsgidav.wsgi/");
    HttpClient::get(&url).run().expect(200);
    let mut failures = String::new();
    for &(suite, count) in suites {
        let text = run_litmus(suite, count, &url);
        let summary =
            format!("<- summary for `{suite}': of {count} tests run: {count} passed, 0 failed.");
        if !text.contains(&summary) {
            failures += &text;
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// Runs one suite, and gives what litmus prints.
fn run_litmus(suite: &str, count: usize, url: &str) -> String {
    let scratch = tempfile::tempdir().unwrap();
    let mut litmus = Command::new("litmus");
    litmus.args(["-k", url]).env("TESTS", suite).current_dir(scratch.path());
    let mut running = RunningProcess::start(piped(&mut litmus));
    // The deadline is for each test.
    for number in 0..count {
        running.await_output(&format!("{number:>2}. "));
    }
    running.end().text()
}
