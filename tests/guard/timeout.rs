//! `--timeout`: a request that takes longer is ended, whatever it is doing.

use std::{io::Write as _, thread};

use crate::{
    guard::{nothing_is_left_of, page},
    support::{
        assertions::{complete_response, only_log_message, parse_response},
        child_process::{RunningProcess, piped},
        probe::{CgiResponse, Implementation, Probe},
    },
};

/// Limits of a request in seconds, each for the case that a busy machine has not called the
/// application within the one before: loading counts, and has a message of its own.
const LIMITS: [&str; 3] = ["4", "15", "45"];

/// The line that every application here prints first.
const CALLED: &str = "the application is called";

/// Ways not to come to an end, from the mildest to the worst.
const ENDLESS: [(&str, &str); 9] = [
    ("a loop", "while True: pass"),
    ("asleep", "time.sleep(1000)"),
    ("waiting for a thread", "threading.Event().wait()"),
    ("waiting for a child", "subprocess.run(['sleep', '1000'])"),
    ("in a system call without Python's knowledge", "ctypes.PyDLL(None).poll(None, 0, -1)"),
    ("catching everything", "exec(CATCHING)"),
    ("ignoring the signal", "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"),
    (
        "blocking the signals",
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGABRT, \
         signal.SIGINT}); time.sleep(1000)",
    ),
    (
        "stuck in C with the interpreter locked",
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}); \
         ctypes.PyDLL(None).sleep(1000)",
    ),
];

/// A request to an application that never finishes.
fn endless(before: &str, statement: &str) -> String {
    format!(
        "
        import ctypes, os, signal, subprocess, threading, time
        CATCHING = 'while True:\\n try: time.sleep(1000)\\n except BaseException: pass'
        def application(environ, start_response):
            print('{CALLED}', flush=True)
            {before}
            {statement}
        "
    )
}

/// A request that timed out in the application.
struct TimedOut {
    limit: &'static str,
    mark: String,
    response: CgiResponse,
}

/// Makes a request to the application in `code`, until it is called within the limit.
#[track_caller]
fn time_out(code: &str) -> TimedOut {
    time_out_within(&LIMITS, code)
}

#[track_caller]
fn time_out_within(limits: &[&'static str], code: &str) -> TimedOut {
    let attempt = |limit| {
        let probe = marked(Probe::new(code)).options(&["--timeout", limit]);
        let response = probe.run();
        TimedOut { limit, mark: mark_of(&probe), response }
    };
    until_called(limits, attempt, |timed_out| &timed_out.response.log)
}

/// Makes a request by `attempt`, until the application has printed [`CALLED`] within the limit.
#[track_caller]
fn until_called<T>(
    limits: &[&'static str],
    attempt: impl Fn(&'static str) -> T,
    log: impl Fn(&T) -> &str,
) -> T {
    for limit in limits {
        let attempted = attempt(limit);
        if log(&attempted).contains(CALLED) {
            return attempted;
        }
    }
    panic!("the application is never called within the limit");
}

#[test]
fn an_endless_request_is_answered_with_504_and_leaves_no_process_behind() {
    at_once(|how, statement| {
        let TimedOut { limit, mark, response } = time_out(&endless("pass", statement));
        assert!(
            page(&response, 504, "W0604").contains(&format!("took longer than {limit} s")),
            "{how}: {}",
            response.log
        );
        nothing_is_left_of(&mark);
    });
}

#[test]
fn an_endless_request_whose_response_headers_have_left_is_cut() {
    at_once(|how, statement| {
        let TimedOut { mark, response, .. } = time_out(&endless(
            "start_response('200 OK', [('Content-Type', 'text/plain')])(b'begun')",
            statement,
        ));
        let head = parse_response(&response.raw).unwrap();
        assert_eq!(
            (head.status, head.body.as_slice(), response.exit.code()),
            (200, &b"begun"[..], Some(1)),
            "{how}"
        );
        assert!(["W0604", "W0602"].contains(&response.codes()[0]), "{how}: {}", response.log);
        only_log_message(&response.log, response.codes()[0]);
        nothing_is_left_of(&mark);
    });
}

/// Tries each of the endless ways, all at the same time: they do little but wait.
fn at_once(attempt: impl Fn(&str, &str) + Sync) {
    thread::scope(|scope| {
        for (how, statement) in ENDLESS {
            let attempt = &attempt;
            scope.spawn(move || attempt(how, statement));
        }
    });
}

fn marked(probe: Probe) -> Probe {
    let mark = probe.directory().display().to_string();
    probe.variable("MARK", mark)
}

fn mark_of(probe: &Probe) -> String {
    format!("MARK={}", probe.directory().display())
}

#[test]
fn the_log_message_shows_the_stack_of_the_application() {
    let app = "
        import time
        def the_slow_one():
            time.sleep(1000)
        def application(environ, start_response):
            print('the application is called', flush=True)
            the_slow_one()
        ";
    let response = time_out(app).response;
    page(&response, 504, "W0604");
    assert!(response.log.contains("in the_slow_one"), "{}", response.log);
    // A process that ignores SIGTERM shows its stack, too.
    let deaf = app.replace(
        "time.sleep",
        "__import__('signal').signal(15, __import__('signal').SIG_IGN); time.sleep",
    );
    let response = time_out(&deaf).response;
    page(&response, 504, "W0604");
    assert!(response.log.contains("in the_slow_one"), "{}", response.log);
}

#[test]
fn children_and_their_children_exit_with_a_request_that_timed_out() {
    let TimedOut { mark, response, .. } = time_out(&endless(
        "subprocess.Popen(['sh', '-c', 'sleep 1000 & sleep 1000 & wait'])",
        "subprocess.Popen(['sleep', '1000']); os.system('sleep 1000')",
    ));
    page(&response, 504, "W0604");
    nothing_is_left_of(&mark);
}

#[test]
fn an_application_that_is_interrupted_by_the_timeout_can_clean_up() {
    let app = "
        import time
        def application(environ, start_response):
            print('the application is called', flush=True)
            try:
                time.sleep(1000)
            except Exception:
                print('taken for an ordinary error')
            finally:
                print('cleaned up')
        ";
    let response = time_out(app).response;
    page(&response, 504, "W0604");
    assert!(
        response.log.contains("cleaned up\n") && !response.log.contains("taken for"),
        "{}",
        response.log
    );
}

#[test]
fn an_application_that_hangs_in_its_clean_up_is_killed() {
    let app = "
        import atexit, time
        def application(environ, start_response):
            print('the application is called', flush=True)
            try:
                time.sleep(1000)
            finally:
                time.sleep(1000)
        atexit.register(lambda: time.sleep(1000))
        ";
    page(&time_out(app).response, 504, "W0604");
}

#[test]
fn an_exit_that_hangs_after_a_request_that_timed_out_is_killed() {
    let app = "
        import atexit, time
        atexit.register(lambda: time.sleep(1000))
        def application(environ, start_response):
            print('the application is called', flush=True)
            time.sleep(1000)
        ";
    let limits = [&["1"], &LIMITS[..]].concat();
    let TimedOut { limit, mark, response } = time_out_within(&limits, app);
    assert_eq!(
        (complete_response(&response.raw).status, response.exit.code()),
        (504, Some(0)),
        "{response:?}"
    );
    // The request was late, and so is the exit of its process. With a longer limit the gateway
    // kills the process before its exit is late.
    let expected: &[&str] = if limit == "1" { &["W0604", "W0607"] } else { &["W0604"] };
    let codes = crate::support::assertions::codes(&response.log);
    assert_eq!(codes, expected, "{}", response.log);
    nothing_is_left_of(&mark);
}

#[test]
fn a_client_that_sends_too_slowly_is_answered_with_504() {
    let app = "
        def application(environ, start_response):
            print('the application is called', flush=True)
            environ['wsgi.input'].read()
        ";
    let attempt = |limit| {
        let probe = Probe::new(app).options(&["--timeout", limit]);
        let probe = probe.variable("REQUEST_METHOD", "POST").variable("CONTENT_LENGTH", "10");
        let mut running = RunningProcess::start(piped(&mut probe.command(Implementation::Wsgate)));
        let mut stdin = running.stdin.take().unwrap();
        stdin.write_all(b"12345").unwrap();
        assert_eq!(complete_response(running.await_end_of_output()).status, 504);
        drop(stdin);
        running.end()
    };
    let ended = until_called(&LIMITS, attempt, |ended| &ended.stderr);
    assert_eq!(ended.code(), Some(0));
    only_log_message(&ended.stderr, "W0604");
}

#[test]
fn a_client_that_does_not_read_on_is_cut_off() {
    let app = "
        def application(environ, start_response):
            print('the application is called', flush=True)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            while True:
                yield b'x' * 10000
        ";
    let attempt = |limit| {
        let probe = Probe::new(app).options(&["--timeout", limit]);
        let (client, response) = std::io::pipe().unwrap();
        let mut command = probe.command(Implementation::Wsgate);
        let ended = RunningProcess::start(piped(&mut command).stdout(response)).end();
        drop(client);
        ended
    };
    let ended = until_called(&LIMITS, attempt, |ended| &ended.stderr);
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    assert_eq!(crate::support::assertions::codes(&ended.stderr).len(), 1, "{}", ended.stderr);
}

#[test]
fn a_request_that_is_in_time_is_left_alone() {
    let app = "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'in time']
        ";
    for seconds in ["0", "60", "1000", "4294967295"] {
        let response = Probe::new(app).options(&["--timeout", seconds]).run();
        assert_eq!(
            (response.text().as_str(), response.log.as_str(), response.exit.code()),
            ("in time", "", Some(0)),
            "{seconds}"
        );
    }
}
