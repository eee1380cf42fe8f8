//! `--response-timeout`, in every mode of CGI: a request without a response gets 504, and a
//! response that has begun goes on.

use crate::{
    guard::nothing_is_left_of,
    support::{
        assertions::{codes, complete_response},
        child_process::{RunningProcess, piped, run},
        install_dir::InstallDir,
        probe::{CgiResponse, Implementation, Probe},
    },
    warm::WarmSite,
};

/// Longer than a busy machine takes to call the application.
const OPTIONS: &str = "--response-timeout 5";

/// Never responds at `/never`, ignores the signal as well at `/deaf`, reads the request body at
/// `/body`, and otherwise responds for longer than the limit.
const SLOW: &str = "
    import signal, time
    def application(environ, start_response):
        path = environ['PATH_INFO']
        if path == '/deaf':
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if path in ('/never', '/deaf'):
            time.sleep(1000)
        if path == '/body':
            environ['wsgi.input'].read()
        start_response('200 OK', [('Content-Type', 'text/plain')])
        yield b'begun, '
        if path == '/streams':
            time.sleep(6)
        yield b'finished'
    ";

fn in_every_mode(assert: impl Fn(&str) + Sync) {
    std::thread::scope(|scope| {
        for mode in ["cold", "warm", "resident"] {
            let assert = &assert;
            scope.spawn(move || assert(mode));
        }
    });
}

fn slow_site(mode: &str) -> WarmSite {
    let site = WarmSite::of(mode, OPTIONS, SLOW);
    assert_eq!(site.ask().text(), "begun, finished", "{mode}: {}", site.log());
    if mode != "cold" {
        site.await_pools(1);
    }
    site
}

fn ask(site: &WarmSite, path: &str) -> CgiResponse {
    site.response(site.request().env("PATH_INFO", path), "")
}

#[test]
fn a_request_that_gets_no_response_in_time_is_answered_with_504_in_every_mode() {
    in_every_mode(|mode| {
        let site = slow_site(mode);
        for (count, path) in ["/never", "/deaf"].into_iter().enumerate() {
            let response = ask(&site, path);
            assert_eq!(complete_response(&response.raw).status, 504, "{mode} {path}");
            let said = response.log.matches("the request got no response within 5 s").count();
            assert_eq!(said, count + 1, "{mode} {path}: {}", response.log);
        }
        assert!(site.log().contains("`--response-timeout`"), "{mode}: {}", site.log());
        let log = site.log();
        let timed_out = codes(&log).into_iter().filter(|code| *code == "W0604").count();
        assert_eq!(timed_out, 2, "{mode}: {log}");
    });
}

#[test]
fn a_response_that_has_begun_is_not_cut_in_any_mode() {
    in_every_mode(|mode| {
        let site = slow_site(mode);
        let response = ask(&site, "/streams");
        assert_eq!(response.text(), "begun, finished", "{mode}: {}", response.log);
        assert!(!response.log.contains("W06"), "{mode}: {}", response.log);
    });
}

#[test]
fn a_request_body_that_does_not_come_in_time_is_named_in_the_message() {
    let probe =
        Probe::new(SLOW).options(&["--response-timeout", "5"]).variable("PATH_INFO", "/body");
    let probe = probe.variable("REQUEST_METHOD", "POST").variable("CONTENT_LENGTH", "10");
    let mut running = RunningProcess::start(piped(&mut probe.command(Implementation::Wsgate)));
    // The web server sends nothing, and keeps the request open.
    let stdin = running.stdin.take().unwrap();
    assert_eq!(complete_response(running.await_end_of_output()).status, 504);
    drop(stdin);
    let log = running.end().stderr;
    assert!(log.contains("no response within 5 s: its body did not come in time"), "{log}");
}

#[test]
fn a_file_that_starts_a_server_when_it_is_loaded_is_answered_with_504() {
    let dir = InstallDir::new();
    let script = dir.script(
        "app.wsgi",
        "#!WSGATE --response-timeout 5",
        "
        import wsgiref.simple_server
        wsgiref.simple_server.make_server('127.0.0.1', 0, None).serve_forever()
        ",
    );
    let mark = format!("MARK={}", dir.path("").display());
    let mut request = dir.request(&script);
    request.env("MARK", dir.path(""));
    let ended = run(&mut request, "");
    assert_eq!(complete_response(&ended.stdout).status, 504);
    assert_eq!(codes(&ended.stderr), ["W0305"], "{}", ended.stderr);
    assert!(ended.stderr.contains("was not loaded within 5 s"), "{}", ended.stderr);
    nothing_is_left_of(&mark);
}
