//! `--timeout` and clients that stall, in every mode of CGI: the request ends, the message says
//! what it waited for, and the next request of the same process is served.

use std::{
    io::Read as _,
    process::{Child, Stdio},
};

use rustix::process::Signal;

use crate::{
    support::{assertions::codes, child_process::RunningProcess, web_servers::eventually},
    warm::WarmSite,
};

/// Reads its body, and answers with more than any pipe holds at `/large`, in each way there is.
const LARGE: &str = "
    import os
    def application(environ, start_response):
        path = environ['PATH_INFO']
        if path == '/body':
            environ['wsgi.input'].read()
        write = start_response('200 OK', [('Content-Type', 'text/plain')])
        if path == '/write':
            write(b'x' * (4 << 20))
        if path == '/list':
            return [b'x' * (4 << 20)]
        if path == '/pieces':
            return (b'x' * (1 << 16) for _ in range(64))
        return [b'small']
    ";

fn start(site: &WarmSite, path: &str) -> Child {
    let mut request = site.request();
    request.env("PATH_INFO", path).env("CONTENT_LENGTH", "10").stdin(Stdio::piped());
    request.spawn().unwrap()
}

#[test]
fn a_client_that_stalls_ends_its_request_and_no_other_in_every_mode() {
    std::thread::scope(|scope| {
        for mode in ["cold", "warm", "resident"] {
            scope.spawn(move || stall(mode));
        }
    });
}

/// Long enough for a request that does not stall, on a busy machine too.
const TIMEOUT: &str = "--timeout 5";

fn stall(mode: &str) {
    let site = WarmSite::of(mode, TIMEOUT, LARGE);
    let small = || site.response(site.request().env("PATH_INFO", "/small"), "").text();
    assert_eq!(small(), "small");
    if mode != "cold" {
        site.await_pools(1);
    }
    for (path, what) in [
        ("/body", "its body did not come in time"),
        ("/list", "its client did not read the response in time"),
        ("/pieces", "its client did not read the response in time"),
        ("/write", "its client did not read the response in time"),
    ] {
        let before = site.log().matches(what).count();
        let mut stalled = start(&site, path);
        eventually("the request has ended", || stalled.try_wait().unwrap().is_some());
        let mut response = Vec::new();
        stalled.stdout.take().unwrap().read_to_end(&mut response).unwrap();
        assert_eq!(response.starts_with(b"Status: 504 "), path == "/body", "{mode} {path}");
        assert!(response.len() < 1 << 20, "{mode} {path}");
        eventually("the log says so", || site.log().matches(what).count() == before + 1);
        assert_eq!(small(), "small", "{mode} {path}");
    }
    let log = site.log();
    assert_eq!(codes(&log), ["W0604"; 4], "{mode}: {log}");
}

/// Stalls in a forked process before it begins with a request that has the header `X-Stalls`.
const STALLS_BEFORE: &str = "
    import os, time
    BORN = os.getpid()
    class Variables(type(os.environb)):
        def __setitem__(self, name, value):
            if name == b'HTTP_X_STALLS' and os.getpid() != BORN:
                open(__file__ + '.stalls', 'w').close()
                time.sleep(1000)
            super().__setitem__(name, value)
    class Data(dict):
        pass
    os.environb._data = os.environ._data = Data(os.environb._data)
    os.environb.__class__ = Variables
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'served']
    ";

#[test]
fn a_request_that_is_ended_while_a_process_takes_it_is_not_served_cold() {
    for mode in ["warm", "resident"] {
        let site = WarmSite::of(mode, "", STALLS_BEFORE);
        site.ask();
        site.await_pools(1);
        let stalls = site.dir.path("site/app.wsgi.stalls");
        let mut request = site.request();
        let running = RunningProcess::start(request.env("HTTP_X_STALLS", "1").stdin(Stdio::null()));
        eventually("a process has taken it", || stalls.exists());
        running.signal(Signal::TERM);
        let ended = running.end();
        assert!(ended.text().starts_with("Status: 503 "), "{mode}: {}", ended.text());
        let log = site.log();
        assert!(codes(&log).contains(&"W0606"), "{mode}: {log}");
        assert!(!log.contains("falls back to cold CGI"), "{mode}: {log}");
    }
}
