//! Requests that end before their time: aborted, or left by the web server (FastCGI 1.0, 5.4).

use std::time::{Duration, Instant};

use fastcgi_server::bodies::{EndRequest, ProtocolStatus};

use crate::{
    pool::{ECHO, GATED, TELLS},
    support::{
        assertions::codes,
        fastcgi_client::{FastcgiRequest, PARAMS, Received, record},
        pool::PoolSetup,
        web_servers::eventually,
    },
};

/// A request that was aborted: it is over, in the sense of the protocol.
#[track_caller]
fn is_over(end: EndRequest) {
    assert_eq!(end.protocol_status, ProtocolStatus::RequestComplete);
}

#[test]
fn f26_a_request_that_is_aborted_before_its_parameters_ends_and_reaches_no_application() {
    let pool = PoolSetup::new(TELLS).start();
    let mut connection = pool.connect();
    let request = FastcgiRequest::get("/never").keep();
    for pieces in [0, 1] {
        connection.send(&request.begin());
        if pieces > 0 {
            connection.send(&record(PARAMS, 1, &request.pairs()[..50]));
        }
        connection.send(&request.abort());
        let response = connection.response();
        is_over(response.end);
        assert_eq!(response.said.len(), 1, "{response:?}");
    }
    connection.ask(&FastcgiRequest::get("/short").keep());
    let mut last = pool.connect();
    let request = FastcgiRequest::get("/never");
    last.send(&request.begin());
    last.send(&request.abort());
    is_over(last.response().end);
    last.assert_closed();
    let log = pool.stop();
    assert!(log.contains("begun /short") && !log.contains("/never"), "{log}");
}

#[test]
fn f26_an_application_whose_request_is_aborted_within_the_body_hears_of_it_when_it_reads() {
    let mut pool = PoolSetup::new(TELLS).start();
    for path in ["/body/short", "/body/raise"] {
        let mut connection = pool.connect();
        let request = FastcgiRequest::post(path, vec![b'x'; 100_000]).keep();
        connection.send(&request.before_body());
        connection.send(&request.stdin(&[b'x'; 50_000]));
        pool.await_log(&format!("begun {path}"));
        connection.send(&request.abort());
        is_over(connection.response().end);
        pool.await_log(&format!("not read {path} ConnectionResetError True"));
        // The connection is as good as before.
        assert!(!connection.ask(&FastcgiRequest::get("/short").keep().id(2)).stdout.is_empty());
    }
    pool.await_log("closed /body/short");
    let log = pool.stop();
    // A client may disconnect at any time.
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn an_abort_that_is_noticed_when_nothing_more_can_be_sent_ends_the_request() {
    let mut pool = PoolSetup::new(
        "
        import os
        def application(environ, start_response):
            print('begun', environ['PATH_INFO'], os.getpid(), file=environ['wsgi.errors'])
            write = start_response('200 OK', [('Content-Type', 'text/plain')])
            for _ in range(int(environ['PATH_INFO'][1:])):
                write(b'x' * 4000)
            environ['wsgi.input'].read()
            return []
        ",
    )
    .start();
    // After one of these numbers of blocks the socket is as full as it can be.
    for blocks in 20..80 {
        let mut connection = pool.connect();
        let request = FastcgiRequest::post(&format!("/{blocks}"), vec![b'x'; 100]).keep();
        connection.send(&[request.before_body(), request.abort()].concat());
        let begun = format!("begun /{blocks} ");
        pool.await_log(&begun);
        let log = pool.log();
        let pid = log.split(&begun).nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
        let stat = format!("/proc/{pid}/stat");
        eventually("the worker waits", || std::fs::read_to_string(&stat).unwrap().contains(") S "));
        is_over(connection.response().end);
        assert!(
            !connection.ask(&FastcgiRequest::post("/1", *b"body").keep().id(2)).stdout.is_empty()
        );
    }
    pool.stop();
}

#[test]
fn f26_an_endless_response_is_ended_by_an_abort() {
    let get = FastcgiRequest::get("/endless").keep();
    an_endless_response_is_ended_by_an_abort_behind(&get, &get.bytes());
}

#[test]
fn an_endless_response_is_ended_by_an_abort_behind_an_unread_body() {
    let post = FastcgiRequest::post("/endless", vec![b'x'; 50_000]).keep();
    an_endless_response_is_ended_by_an_abort_behind(&post, &post.bytes());
    // The rest of this body never comes.
    an_endless_response_is_ended_by_an_abort_behind(
        &post,
        &[post.before_body(), post.stdin(&[b'x'; 20_000])].concat(),
    );
}

/// Sends `begun`, which is the request or a part of it, and then aborts that.
fn an_endless_response_is_ended_by_an_abort_behind(request: &FastcgiRequest, begun: &[u8]) {
    let mut pool = PoolSetup::new(TELLS).start();
    let mut connection = pool.connect();
    connection.send(begun);
    assert!(matches!(connection.next(), Some(Received::Stdout(1, _))));
    connection.send(&request.abort());
    let aborted = Instant::now();
    let mut end = None;
    while end.is_none() {
        match connection.try_next() {
            Ok(Some(Received::End(1, result))) => end = Some(result),
            Ok(Some(Received::Stdout(1, _) | Received::StdoutEnd(1))) => {}
            other => panic!("{other:?}"),
        }
        assert!(aborted.elapsed() < Duration::from_secs(10), "the response goes on");
    }
    is_over(end.unwrap());
    pool.await_log("closed /endless");
    assert!(!connection.ask(&FastcgiRequest::get("/short").keep()).stdout.is_empty());
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn f27_a_connection_that_is_closed_within_the_body_is_an_abort() {
    let mut pool = PoolSetup::new(TELLS).start();
    for path in ["/body/short", "/body/raise"] {
        let connection = pool.connect();
        let request = FastcgiRequest::post(path, vec![b'x'; 100_000]);
        connection.send(&request.before_body());
        connection.send(&request.stdin(&[b'x'; 50_000]));
        pool.await_log(&format!("begun {path}"));
        drop(connection);
        pool.await_log(&format!("not read {path} ConnectionResetError True"));
    }
    pool.await_log("closed /body/short");
    pool.ask(&FastcgiRequest::get("/short"));
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn f27_a_connection_that_is_closed_within_the_response_ends_it_and_closes_the_response() {
    let mut pool = PoolSetup::new(TELLS).start();
    let mut connection = pool.connect();
    connection.send(&FastcgiRequest::get("/endless").bytes());
    assert!(matches!(connection.next(), Some(Received::Stdout(1, _))));
    drop(connection);
    pool.await_log("closed /endless");
    pool.ask(&FastcgiRequest::get("/short"));
    // The one that served it may be a little behind its own `close()`.
    eventually("it is counted, and the other is not", || {
        let reported = pool.run_wsgate(&["status", "--json", "app"]).stdout;
        let status: serde_json::Value = serde_json::from_slice(&reported).unwrap();
        status["aborted"] == 1
    });
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

/// Gives empty blocks without end, and says so when it is ended.
const EMPTY: &str = "
    import time
    def application(environ, start_response):
        path = environ['PATH_INFO']
        def empty():
            print('at work', path)
            try:
                while True:
                    time.sleep(0.001)
                    yield b''
            finally:
                print('closed', path)
        if path == '/short':
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'short']
        if 'unstarted' in path:
            return empty()
        write = start_response('200 OK', [('Content-Type', 'text/plain')])
        if 'write' in path:
            try:
                print('at work', path)
                while True:
                    time.sleep(0.001)
                    write(b'')
            finally:
                print('closed', path)
        return empty()
    ";

#[test]
fn f27_a_stream_of_empty_blocks_ends_with_its_connection_or_its_abort() {
    for threads in ["1", "2"] {
        let mut pool = PoolSetup::new(EMPTY).args(&["--threads", threads]).start();
        for path in ["/iterable", "/unstarted", "/write"] {
            for (body, is_aborted) in
                [(0, false), (100, false), (60_000, false), (0, true), (100, true), (60_000, true)]
            {
                let path = format!("{path}/{body}/{is_aborted}");
                let request = FastcgiRequest::post(&path, vec![b'x'; body]).keep();
                let mut connection = pool.connect();
                // The body is never read, and its end does not come.
                connection.send(&request.before_body());
                connection.send(&request.stdin(&vec![b'x'; body / 2]));
                pool.await_log(&format!("at work {path}\n"));
                if is_aborted {
                    connection.send(&request.abort());
                    is_over(connection.response().end);
                    assert_eq!(
                        connection.ask(&FastcgiRequest::get("/short").keep()).text(),
                        "short"
                    );
                }
                drop(connection);
                pool.await_log(&format!("closed {path}\n"));
            }
        }
        let log = pool.stop();
        assert_eq!(codes(&log), [""; 0], "{log}");
    }
}

#[test]
fn f27_a_connection_that_is_closed_before_the_application_runs_is_quiet() {
    let pool = PoolSetup::new(ECHO).start();
    for length in [0, 4, 8, 16, 20, 100, 290] {
        let connection = pool.connect();
        connection.send(&FastcgiRequest::post("/", "body").bytes()[..length]);
    }
    assert_eq!(pool.ask(&FastcgiRequest::get("/after")).text(), "/after|");
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn f28_an_abort_of_a_finished_request_is_ignored() {
    let pool = PoolSetup::new(ECHO).start();
    let mut connection = pool.connect();
    for id in [1, 1, 2] {
        let request = FastcgiRequest::post("/", "body").keep().id(id);
        assert_eq!(connection.ask(&request).text(), "/|body");
        connection.send(&request.abort());
    }
    // An abort and the end of the connection at once end the request once.
    let request = FastcgiRequest::post("/", "body").keep().id(3);
    let mut bytes = request.bytes();
    bytes.extend(request.abort());
    connection.send(&bytes);
    is_over(connection.response().end);
    assert_eq!(connection.ask(&FastcgiRequest::get("/after").keep().id(4)).text(), "/after|");
    pool.stop();
}

#[test]
fn f27_a_client_that_disconnects_while_the_application_works_costs_one_request() {
    let mut pool = PoolSetup::new(GATED).gated().start();
    let connection = pool.connect();
    connection.send(&FastcgiRequest::post("/slow", "body").bytes());
    pool.await_log("at the gate");
    drop(connection);
    pool.open_gate();
    assert_eq!(pool.ask(&FastcgiRequest::get("/after")).text(), "/after|");
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}
