//! One request: its variables, its body, its reply, and its end before its time (FastCGI 1.0, 5.2, 5.4, 5.5, 6).

use fastcgi_server::bodies::{EndRequest, ProtocolStatus};

use super::{
    ECHO, GATED,
    process::Setup,
    wire::{Ask, PARAMS, Said, record},
};
use crate::verdict::codes;

/// Says in the log how its body was read, how its blocks were sent, and that it was closed.
const TELLS: &str = "
    class Blocks:
        def __init__(self, path, count):
            self.path, self.left = path, count
        def __iter__(self):
            return self
        def __next__(self):
            self.left -= 1
            if self.left < 0:
                raise StopIteration
            return b'x' * 1000
        def close(self):
            print('closed', self.path)

    def application(environ, start_response):
        path = environ['PATH_INFO']
        print('begun', path)
        if 'body' in path:
            try:
                print('read', path, len(environ['wsgi.input'].read()))
            except Exception as error:
                print('not read', path, type(error).__name__, isinstance(error, OSError))
                if 'raise' in path:
                    raise
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return Blocks(path, 2 if 'short' in path else 10 ** 9)
    ";

#[test]
fn f24_of_two_values_the_last_wins() {
    let pool = Setup::new(ECHO).start();
    let mut ask = Ask::post("/first", "body").keep();
    let mut pairs = ask.pairs();
    pairs.extend(b"\x09\x07PATH_INFO/second");
    let mut bytes = ask.begin();
    bytes.extend(record(PARAMS, 1, &pairs));
    bytes.extend(record(PARAMS, 1, b""));
    bytes.extend(ask.stdin(b"body"));
    bytes.extend(ask.end_of_stdin());
    let mut wire = pool.connect();
    wire.send(&bytes);
    assert_eq!(wire.answer().text(), "/second|body");
    // In whatever order they come.
    ask = Ask::get("/").keep().without("REQUEST_METHOD").param("REQUEST_METHOD", "GET");
    assert_eq!(wire.ask(&ask).text(), "/|");
    pool.stop();
}

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
fn f26_an_endless_reply_is_ended_by_an_abort() {
    let mut pool = Setup::new(TELLS).start();
    let mut wire = pool.connect();
    let ask = Ask::get("/endless").keep();
    wire.send(&ask.bytes());
    assert!(matches!(wire.next(), Some(Said::Stdout(1, _))));
    wire.send(&ask.abort());
    let mut end = None;
    while end.is_none() {
        match wire.try_next() {
            Ok(Some(Said::End(1, result))) => end = Some(result),
            Ok(Some(Said::Stdout(1, _) | Said::StdoutEnd(1))) => {}
            other => panic!("{other:?}"),
        }
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
fn f27_a_connection_that_is_closed_within_the_reply_ends_it_and_closes_the_response() {
    let mut pool = Setup::new(TELLS).start();
    let mut wire = pool.connect();
    wire.send(&Ask::get("/endless").bytes());
    assert!(matches!(wire.next(), Some(Said::Stdout(1, _))));
    drop(wire);
    pool.await_log("closed /endless");
    pool.ask(&Ask::get("/short"));
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn f27_a_connection_that_is_closed_before_the_application_runs_is_quiet() {
    let pool = Setup::new(ECHO).start();
    for length in [0, 4, 8, 16, 20, 100, 300] {
        let wire = pool.connect();
        wire.send(&Ask::post("/", "body").bytes()[..length]);
    }
    assert_eq!(pool.ask(&Ask::get("/after")).text(), "/after|");
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

#[test]
fn f28_an_abort_of_a_request_that_is_over_is_ignored() {
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
fn f33_nothing_comes_on_stderr_whatever_an_application_writes_there() {
    let pool = Setup::new(
        "
        import sys
        def application(environ, start_response):
            environ['wsgi.errors'].write('one\\n')
            sys.stderr.write('two\\n')
            start_response('200 OK', [('Content-Type', 'text/plain')])
            yield b'reply'
            environ['wsgi.errors'].write('three\\n')
        ",
    )
    .start();
    let answer = pool.ask(&Ask::get("/"));
    assert_eq!(answer.text(), "reply");
    let log = pool.stop();
    assert!(["one\n", "two\n", "three\n"].iter().all(|line| log.contains(line)), "{log}");
}

#[test]
fn f34_a_reply_without_a_body_has_a_head_and_the_end_of_stdout() {
    let pool = Setup::new(
        "
        def application(environ, start_response):
            start_response('204 No Content', [])
            return []
        ",
    )
    .start();
    let answer = pool.ask(&Ask::get("/"));
    assert_eq!((answer.head().status, answer.head().body.len()), (204, 0));
    let [Said::Stdout(1, _), Said::StdoutEnd(1), Said::End(1, _)] = &answer.said[..] else { panic!("{answer:?}") };
    pool.stop();
}

#[test]
fn f36_the_status_travels_as_a_field_and_never_as_a_line_of_http() {
    let pool = Setup::new(
        "
        def application(environ, start_response):
            start_response(environ['PATH_INFO'][1:], [('Location', 'http://example.org/')])
            return [b'']
        ",
    )
    .start();
    // Names of scripts and variables that mean another kind of reply elsewhere change nothing.
    for name in ["/app.wsgi", "/nph-app.wsgi"] {
        let ask = Ask::get("/302 Found").param("SCRIPT_NAME", name).param("SERVER_PROTOCOL", "HTTP/1.1");
        let answer = pool.ask(&ask);
        assert!(answer.stdout.starts_with(b"Status: 302 Found\r\n"), "{answer:?}");
        assert_eq!((answer.head().status, answer.head().all("Location")), (302, vec!["http://example.org/"]));
    }
    pool.stop();
}

#[test]
fn f37_nothing_is_said_before_the_parameters_are_over() {
    let pool = Setup::new(ECHO).start();
    let mut wire = pool.connect();
    let ask = Ask::get("/").keep().param("CONTENT_LENGTH", "nonsense");
    let before = ask.before_body();
    wire.send(&before[..before.len() - 8]);
    // Others are served by the same thread afterwards, so that it has seen all of it.
    pool.ask(&Ask::get("/other"));
    assert!(!wire.has_more());
    wire.send(&before[before.len() - 8..]);
    assert_eq!(wire.answer().head().status, 400);
    pool.stop();
}

#[test]
fn f38_a_reply_may_begin_and_end_before_the_body_has_come() {
    let pool = Setup::new(
        "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            yield b'begun'
            if environ['PATH_INFO'] == '/reads':
                yield environ['wsgi.input'].read()
        ",
    )
    .start();
    let mut wire = pool.connect();
    let ask = Ask::post("/reads", "body").keep();
    wire.send(&ask.before_body());
    let Some(Said::Stdout(1, begun)) = wire.next() else { panic!("no reply") };
    assert!(begun.ends_with(b"begun"));
    wire.send(&ask.stdin(b"body"));
    wire.send(&ask.end_of_stdin());
    assert!(wire.answer().stdout.ends_with(b"body"));
    let ask = Ask::post("/does not", "body").keep();
    wire.send(&ask.before_body());
    assert_eq!(wire.answer().text(), "begun");
    wire.send(&ask.stdin(b"body"));
    wire.send(&ask.end_of_stdin());
    assert_eq!(wire.ask(&Ask::get("/").keep()).text(), "begun");
    pool.stop();
}

#[test]
fn f39_a_body_is_never_longer_than_its_content_length() {
    let pool = Setup::new(ECHO).start();
    let mut wire = pool.connect();
    for sent in ["body and more", &"body".repeat(50_000)] {
        let ask = Ask::post("/", "body").keep().body(sent);
        assert_eq!(wire.ask(&ask).text(), "/|body");
        assert_eq!(wire.ask(&Ask::get("/after").keep()).text(), "/after|");
    }
    pool.stop();
}

#[test]
fn f39_a_body_without_a_length_reaches_to_its_end() {
    let pool = Setup::new(ECHO).start();
    let mut wire = pool.connect();
    for length in [0, 1, 100_000] {
        let ask = Ask::post("/", vec![b'x'; length]).keep().without("CONTENT_LENGTH");
        assert_eq!(wire.ask(&ask).text().len(), 2 + length);
    }
    pool.stop();
}

#[test]
fn f40_a_body_that_is_shorter_than_its_content_length_is_not_taken_for_a_whole_one() {
    let mut pool = Setup::new(TELLS).start();
    let mut wire = pool.connect();
    for (path, sent) in [("/body/raise/some", "so"), ("/body/raise/none", "")] {
        let ask = Ask::post(path, "some more").keep().body(sent);
        let answer = wire.ask(&ask);
        is_over(answer.end);
        assert!(answer.head().status >= 400, "{answer:?}");
        pool.await_log(&format!("not read {path} ConnectionResetError"));
    }
    pool.stop();
}

#[test]
fn f41_a_reply_ends_with_the_status_of_success_and_a_reply_that_is_cut_does_not_end() {
    let pool = Setup::new(
        "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '10')])
            yield b'begun'
            if environ['PATH_INFO'] == '/raises':
                raise RuntimeError
            yield b' over'
        ",
    )
    .start();
    let mut wire = pool.connect();
    let answer = wire.ask(&Ask::get("/").keep());
    assert_eq!(answer.text(), "begun over");
    let [.., Said::StdoutEnd(1), Said::End(1, end)] = &answer.said[..] else { panic!("{answer:?}") };
    assert_eq!(*end, EndRequest { app_status: 0, protocol_status: ProtocolStatus::RequestComplete });
    wire.send(&Ask::get("/raises").keep().bytes());
    let cut = wire.try_answer();
    let told = cut.as_ref().is_ok_and(|answer| answer.as_ref().is_some_and(|answer| answer.end.app_status != 0));
    assert!(cut.is_err() || told, "a reply that was cut looks whole: {cut:?}");
    pool.stop();
}

#[test]
fn f42_an_authorizer_has_no_body_and_its_reply_goes_back_as_it_is() {
    let pool = Setup::new(
        "
        def application(environ, start_response):
            body = environ['wsgi.input'].read()
            if environ.get('HTTP_AUTHORIZATION') == 'Basic eDp5':
                start_response('200 OK', [('Variable-AUTH_METHOD', 'database lookup'), ('Content-Type', 'text/plain')])
                return []
            start_response('401 Unauthorized', [('WWW-Authenticate', 'Basic'), ('Content-Type', 'text/plain')])
            return [b'who are you?' + body]
        ",
    )
    .start();
    let mut wire = pool.connect();
    let ask = Ask::get("").keep().role(2).without("PATH_INFO").without("SCRIPT_NAME");
    let refused = wire.ask(&ask).head();
    assert_eq!((refused.status, refused.body.as_slice()), (401, &b"who are you?"[..]));
    let passed = wire.ask(&ask.clone().param("HTTP_AUTHORIZATION", "Basic eDp5").id(2)).head();
    assert_eq!((passed.status, passed.all("Variable-AUTH_METHOD")), (200, vec!["database lookup"]));
    // A web server that leaves the length in must not be waited for.
    let refused = wire.ask(&ask.clone().param("CONTENT_LENGTH", "100").id(3));
    assert!(refused.head().status >= 400);
    let mut last = pool.connect();
    assert_eq!(last.ask(&Ask::get("/").role(2)).head().status, 401);
    last.assert_closed();
    pool.stop();
}

#[test]
fn f27_a_client_that_goes_while_the_application_works_costs_one_request() {
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
