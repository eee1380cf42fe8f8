//! `close()` of a response body: called when the response has ended, within the time of the
//! request.

use std::{
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Signal, geteuid};

use crate::{
    each_mode::{MODES, Mode, ServedApp},
    support::{
        assertions::{complete_response, parse_response},
        web_servers::eventually,
    },
};

const CGI_MODES: [Mode; 3] = [Mode::Cold, Mode::Warm, Mode::Resident];

/// A body whose `close()` waits until somebody opens the gate, or without an end. The path says
/// which response it belongs to.
const CLOSES_LATE: &str = "
    import ctypes, io, os, time
    OUT = os.environ.get('OUT')
    class Body:
        def __init__(self, path, blocks):
            self.path, self.blocks = path, blocks
        def __iter__(self):
            if self.path.startswith('/raises'):
                raise RuntimeError('on purpose')
            if self.path.startswith('/breaks'):
                yield b'do'
                raise RuntimeError('on purpose')
            yield from self.blocks
        def close(self):
            out = os.environ.get('OUT', OUT)
            with open(out + '/closing', 'w'):
                pass
            if self.path.startswith('/leaves'):
                os.setresuid(54321, 54321, 54321)
            if self.path.endswith('deaf'):
                the_slow_one(True)
            elif self.path.endswith('ever'):
                the_slow_one(False)
            else:
                while not os.path.exists(out + '/gate'):
                    time.sleep(0.01)
            with open(out + '/closed', 'w') as closed:
                closed.write('closed')
    def the_slow_one(is_deaf):
        while True:
            try:
                time.sleep(0.05)
            except BaseException:
                if not is_deaf:
                    raise
    def application(environ, start_response):
        path = environ['PATH_INFO']
        status = '204 No Content' if path.startswith('/204') else '200 OK'
        headers = [('Content-Type', 'text/plain')]
        if path.startswith('/length'):
            headers.append(('Content-Length', '4'))
        write = start_response(status, headers)
        if path in ('', '/'):
            return [b'done']
        if path.startswith('/write'):
            write(b'do')
            return Body(path, [b'ne'])
        return Body(path, [] if path.startswith('/204') else [b'do', b'ne'])
    ";

#[test]
fn a_cgi_response_ends_before_its_close_returns() {
    let requests = [
        ("GET", "/length", 200, "done"),
        ("GET", "/plain", 200, "done"),
        ("GET", "/write", 200, "done"),
        ("HEAD", "/length", 200, ""),
        ("HEAD", "/plain", 200, ""),
        ("GET", "/204", 204, ""),
    ];
    for mode in CGI_MODES {
        let served = ServedApp::start(mode, &[], CLOSES_LATE);
        for (method, path, status, body) in requests {
            let mut running = served.begin(method, path).unwrap();
            let response = parse_response(running.await_end_of_output()).unwrap();
            assert_eq!(
                (response.status, response.body.as_slice()),
                (status, body.as_bytes()),
                "{mode:?} {method} {path}"
            );
            assert_eq!(served.written("closed"), "", "{mode:?} {method} {path}");
            std::fs::write(served.out("gate"), "").unwrap();
            assert_eq!(running.end().code(), Some(0), "{mode:?} {method} {path}");
            eventually("close() returns", || served.written("closed") == "closed");
            for file in ["gate", "closing", "closed"] {
                std::fs::remove_file(served.out(file)).unwrap();
            }
        }
        // An error page ends before its close, too.
        let mut running = served.begin("GET", "/raises").unwrap();
        assert_eq!(complete_response(running.await_end_of_output()).status, 500, "{mode:?}");
        std::fs::write(served.out("gate"), "").unwrap();
        assert_eq!(running.end().code(), Some(0), "{mode:?}");
        eventually("close() returns", || served.written("closed") == "closed");
        assert_eq!(served.log().matches("error[").count(), 1, "{mode:?}: {}", served.log());
    }
}

#[test]
fn the_time_of_a_request_counts_for_its_close() {
    for mode in MODES {
        for path in ["/length/for/ever", "/plain/for/ever"] {
            let mut served = ServedApp::start(mode, &["--timeout", "3"], CLOSES_LATE);
            let response = served.request("GET", path, &[], b"");
            assert_eq!(
                (response.text().as_str(), response.exit.code()),
                ("done", Some(0)),
                "{mode:?} {path}"
            );
            if CGI_MODES.contains(&mode) {
                eventually(&format!("{mode:?} {path}: the log says so: {}", served.log()), || {
                    served.log().contains("[W0604]")
                });
            }
            // A persistent process is still running.
            assert_eq!(served.ask("/"), "done", "{mode:?} {path}");
            let log = served.stop();
            assert_eq!(log.matches("error[").count(), 1, "{mode:?} {path}: {log}");
            assert!(
                log.contains("`close()` of its response has not returned"),
                "{mode:?} {path}: {log}"
            );
            assert!(log.contains("in the_slow_one"), "{mode:?} {path}: {log}");
        }
    }
}

#[test]
fn the_time_of_a_request_counts_for_the_close_of_a_response_that_breaks() {
    thread::scope(|scope| {
        for mode in MODES {
            scope.spawn(move || {
                let mut served = ServedApp::start(mode, &["--timeout", "8"], CLOSES_LATE);
                let begin = Instant::now();
                let response = served.request("GET", "/breaks/for/ever", &[], b"");
                // The cut does not wait for `close()`; a cold gateway does, with its exit.
                let elapsed = begin.elapsed();
                let is_early = elapsed < Duration::from_secs(6);
                assert!(is_early || mode.is_cgi(), "{mode:?}: {elapsed:?}");
                assert_ne!(response.exit.code(), Some(0), "{mode:?}: {response:?}");
                if mode.is_cgi() {
                    eventually(&format!("{mode:?}: the log says so: {}", served.log()), || {
                        served.log().contains("in the_slow_one")
                    });
                }
                assert_eq!(served.ask("/"), "done", "{mode:?}");
                let log = served.stop();
                assert!(
                    log.contains("`close()` of its response has not returned"),
                    "{mode:?}: {log}"
                );
                assert!(!log.contains("W0603"), "{mode:?}: {log}");
            });
        }
    });
}

#[test]
fn a_hanging_close_costs_its_process_and_no_response() {
    for mode in CGI_MODES {
        let served = ServedApp::start(mode, &["--timeout", "3"], CLOSES_LATE);
        let response = served.request("GET", "/length/deaf", &[], b"");
        assert_eq!((response.text().as_str(), response.exit.code()), ("done", Some(0)), "{mode:?}");
        let log = || served.log();
        eventually(&format!("{mode:?}: the log says so: {}", log()), || {
            log().contains("[W0604]") && log().contains("in the_slow_one")
        });
        assert_eq!(served.ask("/"), "done", "{mode:?}");
    }
}

#[test]
fn a_close_outlives_a_gateway_that_the_web_server_kills() {
    for signal in [Signal::TERM, Signal::KILL] {
        let served = ServedApp::start(Mode::Cold, &["--timeout", "60"], CLOSES_LATE);
        let mut running = served.begin("GET", "/length").unwrap();
        complete_response(running.await_end_of_output());
        eventually("close() is called", || served.out("closing").exists());
        running.signal(signal);
        // The gateway exits at once, which Apache waits for.
        running.end();
        std::fs::write(served.out("gate"), "").unwrap();
        eventually("close() returns", || served.written("closed") == "closed");
        assert!(!served.log().contains("error["), "{signal:?}: {}", served.log());
    }
}

#[test]
fn an_endless_close_does_not_outlive_its_gateway_for_ever() {
    let leaves = if geteuid().is_root() { 2 } else { 0 };
    // The kernel does not signal the death of a parent to a process that has changed its user.
    for path in ["/length/for/ever", "/length/deaf"]
        .into_iter()
        .chain(["/leaves/deaf"; 2].into_iter().take(leaves))
    {
        let served = ServedApp::start(Mode::Cold, &["--timeout", "3"], CLOSES_LATE);
        let mut running = served.begin("GET", path).unwrap();
        complete_response(running.await_end_of_output());
        running.signal(Signal::KILL);
        running.end();
        eventually("the log names the place", || {
            let log = served.log();
            log.contains("[W0604]") && log.contains("in the_slow_one")
        });
        let mark = format!("OUT={}", served.out("").display());
        crate::guard::nothing_is_left_of(mark.trim_end_matches('/'));
        assert_eq!(served.log().matches("error[").count(), 1, "{path}: {}", served.log());
    }
}
