//! Requests resemble each other, and what was the same last time is used again: nothing of that may
//! be seen.

use std::{collections::BTreeMap, fs};

use proptest::{prelude::*, test_runner::TestRunner};

use crate::support::{
    fastcgi_client::FastcgiRequest,
    pool::{PoolSetup, count},
    web_servers::eventually,
};

/// Sends the variables of the request whose names begin with `X`, and changes its environ.
const VARIABLES: &str = "
    import json
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'application/json')])
        sent = {name: value for name, value in environ.items() if name[0] == 'X'}
        for name in list(environ):
            environ[name] = 'the application changed it'
        environ['X_ADDED'] = 'by the application'
        return [json.dumps(sent).encode()]
    ";

#[test]
fn w02_a_request_has_its_own_variables_after_any_other() {
    let pool = PoolSetup::new(VARIABLES).start();
    let value = prop_oneof![
        4 => Just(String::new()),
        8 => "[a-c]{1,2}",
        1 => "[a-c]{1023,1026}",
        1 => Just("v".repeat(5000)),
    ];
    // Few names, so that most come again, and some of the same beginning, length and end; and
    // orders of all kinds.
    let request = proptest::collection::vec(("X(_NAME_[0-9]_IS_LONG|[A-F]?)", value), 0..12);
    let connection = proptest::collection::vec(request, 1..12);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let result = runner.run(&connection, |requests| {
        let mut wire = pool.connect();
        for variables in requests {
            let mut ask = FastcgiRequest::get("/").keep();
            // Of two values the last counts.
            ask.params.extend(
                variables.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())),
            );
            let sent: BTreeMap<String, String> =
                serde_json::from_str(&wire.ask(&ask).text()).unwrap();
            prop_assert_eq!(sent, variables.into_iter().collect::<BTreeMap<_, _>>());
        }
        Ok(())
    });
    result.unwrap();
    pool.stop();
}

#[test]
fn more_names_than_are_remembered_arrive_all_the_same() {
    let pool = PoolSetup::new(VARIABLES).start();
    let mut wire = pool.connect();
    for round in 0..4 {
        let mut ask = FastcgiRequest::get("/").keep();
        let names = (0..300).map(|number| format!("X_{}", number + round * 150));
        ask.params.extend(names.map(|name| (name.clone(), name.into_bytes())));
        let sent: BTreeMap<String, String> = serde_json::from_str(&wire.ask(&ask).text()).unwrap();
        assert_eq!(sent.len(), 300);
        assert!(sent.iter().all(|(name, value)| name == value));
    }
    pool.stop();
}

#[test]
fn an_application_that_keeps_all_it_gets_keeps_no_connection_open() {
    let pool = PoolSetup::new(
        "
        import os
        kept = []
        def application(environ, start_response):
            kept.append((environ, environ['wsgi.input'], start_response))
            write = start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', \
            str(os.getpid()))])
            kept.append(write)
            outcome = b'none'
            if len(kept) > 2:
                try:
                    kept[1](b'late')
                except Exception as error:
                    outcome = type(error).__name__.encode()
            return [outcome]
        ",
    )
    .start();
    let first = pool.ask(&FastcgiRequest::get("/"));
    assert_eq!(first.text(), "none");
    let descriptors = count(first.pid(), "fd");
    for _ in 0..50 {
        let mut wire = pool.connect();
        let response = wire.ask(&FastcgiRequest::get("/"));
        wire.assert_closed();
        assert_eq!(response.text(), "BrokenPipeError", "an old `write` reaches nobody");
    }
    // A worker waits a moment for the other end of a connection to be closed.
    eventually("the worker has closed all", || count(first.pid(), "fd") <= descriptors);
    pool.stop();
}

#[test]
fn wsgi_errors_that_was_detached_is_a_new_stream_at_the_next_request() {
    let mut pool = PoolSetup::new(
        "
        def application(environ, start_response):
            errors = environ['wsgi.errors']
            print('before', environ['PATH_INFO'], file=errors)
            print('without an end', end='', file=errors)
            if environ['PATH_INFO'] == '/detach':
                errors.detach()
            if environ['PATH_INFO'] == '/close':
                errors.close()
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'response']
        ",
    )
    .start();
    let mut wire = pool.connect();
    for path in ["/first", "/detach", "/second", "/close", "/third"] {
        assert_eq!(wire.ask(&FastcgiRequest::get(path).keep()).text(), "response");
        pool.await_log(&format!("before {path}\n"));
    }
    pool.await_times("without an end", 4);
    pool.stop();
}

#[test]
fn lines_that_are_written_to_the_buffer_of_errors_leave_at_once() {
    let mut pool = PoolSetup::new(
        "
        import os
        def application(environ, start_response):
            environ['wsgi.errors'].buffer.write(b'bytes of a line\\n')
            gate = os.open(os.environ['GATE'], os.O_RDONLY)
            os.read(gate, 1)
            os.close(gate)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'response']
        ",
    )
    .gated()
    .start();
    let mut wire = pool.connect();
    wire.send(&FastcgiRequest::get("/").bytes());
    pool.await_log("bytes of a line\n");
    pool.open_gate();
    assert_eq!(wire.response().text(), "response");
    pool.stop();
}

#[test]
fn a_connection_that_a_child_of_the_application_has_open_still_keeps_no_worker_awake() {
    let pool = PoolSetup::new(
        "
        import os
        def application(environ, start_response):
            if environ['PATH_INFO'] == '/fork' and os.fork() == 0:
                gate = os.open(os.environ['GATE'], os.O_RDONLY)
                os.read(gate, 1)
                os._exit(0)
            start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
            return [b'response']
        ",
    )
    .gated()
    .start();
    let mut other = pool.connect();
    let worker = other.ask(&FastcgiRequest::get("/").keep()).pid();
    let before = count(worker, "fd");
    let mut wire = pool.connect();
    wire.ask(&FastcgiRequest::get("/fork").keep());
    drop(wire);
    eventually("the worker has closed it", || count(worker, "fd") == before);
    // A worker that is woken by an endless event never sleeps.
    eventually("the worker sleeps", || {
        let stat = fs::read_to_string(format!("/proc/{worker}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().trim_start().starts_with('S')
    });
    assert_eq!(other.ask(&FastcgiRequest::get("/").keep()).text(), "response");
    pool.open_gate();
    pool.stop();
}
