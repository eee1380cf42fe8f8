//! W06: `close()` is called once on every path, whatever ends the request.

use std::{fs, path::Path};

use crate::support::probe::Probe;

/// An application whose body notes each call of `close()` in a file; `steps` is what its iteration
/// does.
fn closing(steps: &str) -> Probe {
    let code = format!(
        "
        import os, signal, sys, time
        class Body:
            def __iter__(self):
                {steps}
                yield b''
            def close(self):
                with open('closed', 'a') as file:
                    file.write('closed ')
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return Body()
        "
    );
    Probe::new(&code)
}

fn calls(directory: &Path) -> String {
    fs::read_to_string(directory.join("closed")).unwrap_or_default()
}

#[test]
fn w06_close_is_called_once_after_success() {
    let probe = closing("yield b'fine'");
    assert_eq!(probe.run().text(), "fine");
    assert_eq!(calls(probe.directory()), "closed ");
}

#[test]
fn w06_close_is_called_once_after_an_error_before_or_after_the_response_headers() {
    for steps in [
        "raise ValueError()",
        "yield b'x'; raise ValueError()",
        "yield 'text'",
        "yield b'x'; yield 1",
        "sys.exit(1)",
    ] {
        let probe = closing(steps);
        assert_eq!(probe.run().codes().len(), 1, "{steps}");
        assert_eq!(calls(probe.directory()), "closed ", "{steps}");
    }
}

#[test]
fn w06_close_is_called_once_when_the_client_has_disconnected() {
    let probe = closing("for _ in range(10**6): yield b'x' * 65536");
    let mut child = probe.start();
    drop(child.stdout.take());
    let log = crate::support::probe::collect(child.stderr.take().unwrap());
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(calls(probe.directory()), "closed ");
    // Going away is a client's right, and nothing to fill a log with.
    assert_eq!(String::from_utf8_lossy(&log.join().unwrap()), "");
}

#[test]
fn w06_close_is_called_once_at_the_timeout() {
    for steps in ["signal.pause()", "yield b'begun'; signal.pause()"] {
        let probe = closing(steps).options(&["--timeout", "3"]);
        assert_eq!(probe.run().codes(), ["W0604"], "{steps}");
        assert_eq!(calls(probe.directory()), "closed ", "{steps}");
    }
}

#[test]
fn w06_close_is_called_once_for_a_head_request_and_for_a_cut_body() {
    let head = closing("yield b'x'").variable("REQUEST_METHOD", "HEAD");
    head.run();
    assert_eq!(calls(head.directory()), "closed ");
    let code = "
        class Body(list):
            def close(self):
                print('closed')
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '1')])
            return Body([b'xyz', b'abc'])
        ";
    assert_eq!(Probe::new(code).run().log.matches("closed\n").count(), 1);
}

#[test]
fn w06_a_generator_gets_its_generator_exit() {
    let code = "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '1')])
            try:
                while True:
                    yield b'x'
            except GeneratorExit:
                print('left')
                raise
            finally:
                print('finally')
        ";
    let response = Probe::new(code).run();
    assert!(response.log.ends_with("left\nfinally\n"), "{}", response.log);
}

#[test]
fn w06_a_returned_object_that_is_no_body_is_closed() {
    let code = "
        class Odd(str):
            def close(self):
                print('closed')
        def application(environ, start_response):
            start_response('200 OK', [])
            return Odd('text')
        ";
    assert_eq!(Probe::new(code).run().log.matches("closed\n").count(), 1);
}

#[test]
fn an_error_in_close_leaves_the_response_whole_and_is_logged() {
    let code = "
        class Body(list):
            def close(self):
                raise RuntimeError('in close')
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return Body([b'whole'])
        ";
    let response = Probe::new(code).run();
    assert_eq!((response.text().as_str(), response.codes().as_slice()), ("whole", &["W0509"][..]));
    assert!(response.exit.success());
}
