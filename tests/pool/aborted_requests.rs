//! Requests that end before their time: aborted, or left by the web server (FastCGI 1.0, 5.4).

use std::time::{Duration, Instant};

use fastcgi_server::bodies::{EndRequest, ProtocolStatus};

use crate::{
    pool::{ECHO, GATED, TELLS},
    support::{
        assertions::codes,
        fastcgi_client::{Ask, PARAMS, Said, record},
        pool::Setup,
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
    let pool = Setup::new(TELLS).start();
    let mut wire = pool.connect();
    let ask = Ask::get("/never").keep();
    for pieces in [0, 1] {
        wire.send(&ask.begin());
        if pieces > 0 {
            wire.send(&record(PARAMS, 1, &ask.pairs()[..50]));
        }
        wire.send(&ask.abort());
        let answer = wire.answer();
        is_over(answer.end);
        assert_eq!(answer.said.len(), 1, "{answer:?}");
    }
    wire.ask(&Ask::get("/short").keep());
    let mut last = pool.connect();
    let ask = Ask::get("/never");
    last.send(&ask.begin());
    last.send(&ask.abort());
    is_over(last.answer().end);
    last.assert_closed();
    let log = pool.stop();
    assert!(log.contains("begun /short") && !log.contains("/never"), "{log}");
}

#[test]
fn f26_an_application_whose_request_is_aborted_within_the_body_hears_of_it_when_it_reads() {
    let mut pool = Setup::new(TELLS).start();
    for path in ["/body/short", "/body/raise"] {
        let mut wire = pool.connect();
        let ask = Ask::post(path, vec![b'x'; 100_000]).keep();
        wire.send(&ask.before_body());
        wire.send(&ask.stdin(&[b'x'; 50_000]));
        pool.await_log(&format!("begun {path}"));
        wire.send(&ask.abort());
        is_over(wire.answer().end);
        pool.await_log(&format!("not read {path} ConnectionResetError True"));
        // The connection is as good as before.
        assert!(!wire.ask(&Ask::get("/short").keep().id(2)).stdout.is_empty());
    }
    pool.await_log("closed /body/short");
    let log = pool.stop();
    // It is the client's right to go.
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn an_abort_that_is_noticed_when_nothing_more_can_be_sent_ends_the_request() {
    let mut pool = Setup::new(
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
        let mut wire = pool.connect();
        let ask = Ask::post(&format!("/{blocks}"), vec![b'x'; 100]).keep();
        wire.send(&[ask.before_body(), ask.abort()].concat());
        let begun = format!("begun /{blocks} ");
        pool.await_log(&begun);
        let log = pool.log();
        let pid = log.split(&begun).nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
        let stat = format!("/proc/{pid}/stat");
        eventually("the worker waits", || std::fs::read_to_string(&stat).unwrap().contains(") S "));
        is_over(wire.answer().end);
        assert!(!wire.ask(&Ask::post("/1", *b"body").keep().id(2)).stdout.is_empty());
    }
    pool.stop();
}

#[test]
fn f26_an_endless_response_is_ended_by_an_abort() {
    let get = Ask::get("/endless").keep();
    an_endless_response_is_ended_by_an_abort_behind(&get, &get.bytes());
}

#[test]
fn an_endless_response_is_ended_by_an_abort_behind_an_unread_body() {
    let post = Ask::post("/endless", vec![b'x'; 50_000]).keep();
    an_endless_response_is_ended_by_an_abort_behind(&post, &post.bytes());
    // The rest of this body never comes.
    an_endless_response_is_ended_by_an_abort_behind(
        &post,
        &[post.before_body(), post.stdin(&[b'x'; 20_000])].concat(),
    );
}

/// Sends `begun`, which is the request or a part of it, and then aborts that.
fn an_endless_response_is_ended_by_an_abort_behind(ask: &Ask, begun: &[u8]) {
    let mut pool = Setup::new(TELLS).start();
    let mut wire = pool.connect();
    wire.send(begun);
    assert!(matches!(wire.next(), Some(Said::Stdout(1, _))));
    wire.send(&ask.abort());
    let aborted = Instant::now();
    let mut end = None;
    while end.is_none() {
        match wire.try_next() {
            Ok(Some(Said::End(1, result))) => end = Some(result),
            Ok(Some(Said::Stdout(1, _) | Said::StdoutEnd(1))) => {}
            other => panic!("{other:?}"),
        }
        assert!(aborted.elapsed() < Duration::from_secs(10), "the response goes on");
    }
    is_over(end.unwrap());
    pool.await_log("closed /endless");
    assert!(!wire.ask(&Ask::get("/short").keep()).stdout.is_empty());
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn f27_a_connection_that_is_closed_within_the_body_is_an_abort() {
    let mut pool = Setup::new(TELLS).start();
    for path in ["/body/short", "/body/raise"] {
        let wire = pool.connect();
        let ask = Ask::post(path, vec![b'x'; 100_000]);
        wire.send(&ask.before_body());
        wire.send(&ask.stdin(&[b'x'; 50_000]));
        pool.await_log(&format!("begun {path}"));
        drop(wire);
        pool.await_log(&format!("not read {path} ConnectionResetError True"));
    }
    pool.await_log("closed /body/short");
    pool.ask(&Ask::get("/short"));
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn f27_a_connection_that_is_closed_within_the_response_ends_it_and_closes_the_response() {
    let mut pool = Setup::new(TELLS).start();
    let mut wire = pool.connect();
    wire.send(&Ask::get("/endless").bytes());
    assert!(matches!(wire.next(), Some(Said::Stdout(1, _))));
    drop(wire);
    pool.await_log("closed /endless");
    pool.ask(&Ask::get("/short"));
    // The one that served it may be a little behind its own `close()`.
    eventually("it is counted, and the other is not", || {
        let told = pool.tell(&["status", "--json", "app"]).stdout;
        let status: serde_json::Value = serde_json::from_slice(&told).unwrap();
        status["abandoned"] == 1
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
        let mut pool = Setup::new(EMPTY).words(&["--threads", threads]).start();
        for path in ["/iterable", "/unstarted", "/write"] {
            for (body, is_aborted) in
                [(0, false), (100, false), (60_000, false), (0, true), (100, true), (60_000, true)]
            {
                let path = format!("{path}/{body}/{is_aborted}");
                let ask = Ask::post(&path, vec![b'x'; body]).keep();
                let mut wire = pool.connect();
                // The body is never read, and its end does not come.
                wire.send(&ask.before_body());
                wire.send(&ask.stdin(&vec![b'x'; body / 2]));
                pool.await_log(&format!("at work {path}\n"));
                if is_aborted {
                    wire.send(&ask.abort());
                    is_over(wire.answer().end);
                    assert_eq!(wire.ask(&Ask::get("/short").keep()).text(), "short");
                }
                drop(wire);
                pool.await_log(&format!("closed {path}\n"));
            }
        }
        let log = pool.stop();
        assert_eq!(codes(&log), [""; 0], "{log}");
    }
}

#[test]
fn f27_a_connection_that_is_closed_before_the_application_runs_is_quiet() {
    let pool = Setup::new(ECHO).start();
    for length in [0, 4, 8, 16, 20, 100, 290] {
        let wire = pool.connect();
        wire.send(&Ask::post("/", "body").bytes()[..length]);
    }
    assert_eq!(pool.ask(&Ask::get("/after")).text(), "/after|");
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn f28_an_abort_of_a_finished_request_is_ignored() {
    let pool = Setup::new(ECHO).start();
    let mut wire = pool.connect();
    for id in [1, 1, 2] {
        let ask = Ask::post("/", "body").keep().id(id);
        assert_eq!(wire.ask(&ask).text(), "/|body");
        wire.send(&ask.abort());
    }
    // Both at once: whichever is seen first, the request ends once.
    let ask = Ask::post("/", "body").keep().id(3);
    let mut bytes = ask.bytes();
    bytes.extend(ask.abort());
    wire.send(&bytes);
    is_over(wire.answer().end);
    assert_eq!(wire.ask(&Ask::get("/after").keep().id(4)).text(), "/after|");
    pool.stop();
}

#[test]
fn f27_a_client_that_disconnects_while_the_application_works_costs_one_request() {
    let mut pool = Setup::new(GATED).gated().start();
    let wire = pool.connect();
    wire.send(&Ask::post("/slow", "body").bytes());
    pool.await_log("at the gate");
    drop(wire);
    pool.open_gate();
    assert_eq!(pool.ask(&Ask::get("/after")).text(), "/after|");
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}
