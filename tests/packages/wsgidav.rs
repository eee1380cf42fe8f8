//! WsgiDAV under litmus, the test suite for WebDAV servers.
//!
//! Locks and properties are in files of `shelve`, which are written when they are closed: one
//! process at a time may have them open. cheroot, which is one process, passes all tests.

use std::process::Command;

use crate::support::{
    child_process::{Running, piped},
    web_servers::{Apache, CgiModule, Client, Nginx, Setup, Site, WebServer},
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
    litmus_passes(&Apache::start(CgiModule::Cgid, Setup::ScriptAlias, Site::of_mode("warm")));
}

#[test]
fn litmus_passes_resident() {
    let web_server = Apache::start(CgiModule::Cgid, Setup::ScriptAlias, Site::of_mode("resident"));
    // What differs from one request to the next is in the locks; all of the rest is as in warm
    // mode.
    run_suites(&web_server, &SUITES[3..4]);
}

fn litmus_passes(web_server: &dyn WebServer) {
    run_suites(web_server, &SUITES);
}

fn run_suites(web_server: &dyn WebServer, suites: &[(&str, usize)]) {
    let url = web_server.script("wsgidav.wsgi/");
    Client::get(&url).run().expect(200);
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
    let mut running = Running::start(piped(&mut litmus));
    // Each test has the deadline, not all of them.
    for number in 0..count {
        running.await_output(&format!("{number:>2}. "));
    }
    running.end().text()
}
