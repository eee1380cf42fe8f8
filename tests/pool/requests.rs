//! A single request: its variables, its body and its response (FastCGI 1.0, 5.2, 5.5, 6).

use fastcgi_server::bodies::{EndRequest, ProtocolStatus};

use crate::{
    pool::{ECHO, TELLS},
    support::{
        fastcgi_client::{FastcgiRequest, PARAMS, Received, record},
        pool::PoolSetup,
    },
};

#[test]
fn f24_of_two_values_the_last_wins() {
    let pool = PoolSetup::new(ECHO).start();
    let mut request = FastcgiRequest::post("/first", "body").keep();
    let mut pairs = request.pairs();
    pairs.extend(b"\x09\x07PATH_INFO/second");
    let mut bytes = request.begin();
    bytes.extend(record(PARAMS, 1, &pairs));
    bytes.extend(record(PARAMS, 1, b""));
    bytes.extend(request.stdin(b"body"));
    bytes.extend(request.end_of_stdin());
    let mut connection = pool.connect();
    connection.send(&bytes);
    assert_eq!(connection.response().text(), "/second|body");
    // The parameters may come in any order.
    request =
        FastcgiRequest::get("/").keep().without("REQUEST_METHOD").param("REQUEST_METHOD", "GET");
    assert_eq!(connection.ask(&request).text(), "/|");
    pool.stop();
}

/// Answers with the server's own keys, and with what it finds of a request body.
const KEYS: &str = "
    def application(environ, start_response):
        environ['wsgi.errors'].write('written\\n')
        start_response('200 OK', [('Content-Type', 'text/plain')])
        found = [environ['wsgi.url_scheme'], environ['wsgi.input'].read(), \
        int(environ.get('CONTENT_LENGTH', 0)),
            environ.get('CONTENT_TYPE'), environ['HTTP_LAST'], sorted(n for n in environ if \
            n.startswith('wsg'))]
        return [repr(found).encode()]
    ";

#[test]
fn empty_parameters_of_a_body_and_names_of_the_servers_keys_do_not_reach_an_application() {
    let pool = PoolSetup::new(KEYS).start();
    let mut connection = pool.connect();
    let plain = || FastcgiRequest::get("/").keep().param("HTTP_LAST", "z");
    let expected = connection.ask(&plain()).text();
    assert!(expected.starts_with("['http', b'', 0, None, 'z', "), "{expected}");
    // Every request follows every other: a worker remembers the names of earlier parameters.
    for _ in 0..2 {
        let empty =
            FastcgiRequest::get("/").keep().param("CONTENT_LENGTH", "").param("CONTENT_TYPE", "");
        assert_eq!(connection.ask(&empty.param("HTTP_LAST", "z")).text(), expected);
        let typed = FastcgiRequest::post("/", "xy")
            .keep()
            .param("CONTENT_TYPE", "a/b")
            .param("HTTP_LAST", "z");
        assert!(connection.ask(&typed).text().starts_with("['http', b'xy', 2, 'a/b', 'z', "));
        let evil = [
            "wsgi.errors",
            "wsgi.url_scheme",
            "wsgi.input",
            "wsgi.made_up",
            "wsgate.data",
            "wsgate.version",
        ];
        let evil = evil
            .iter()
            .fold(plain(), |request, name| request.param(name, "https").param(name, "https"));
        assert_eq!(connection.ask(&evil).text(), expected);
    }
    let log = pool.stop();
    assert_eq!(log.matches("written\n").count(), 7, "{log}");
}

#[test]
fn f33_output_of_an_application_to_standard_error_is_no_stderr_record() {
    let pool = PoolSetup::new(
        "
        import sys
        def application(environ, start_response):
            environ['wsgi.errors'].write('one\\n')
            sys.stderr.write('two\\n')
            start_response('200 OK', [('Content-Type', 'text/plain')])
            yield b'response'
            environ['wsgi.errors'].write('three\\n')
        ",
    )
    .start();
    let response = pool.ask(&FastcgiRequest::get("/"));
    assert_eq!(response.text(), "response");
    let log = pool.stop();
    assert!(["one\n", "two\n", "three\n"].iter().all(|line| log.contains(line)), "{log}");
}

#[test]
fn f51_the_response_headers_come_first_even_behind_many_log_messages() {
    let mut pool = PoolSetup::new(
        "
        import sys
        def application(environ, start_response):
            environ['wsgi.errors'].write('long before the head\\n' * 10000)
            environ['wsgi.errors'].flush()
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'response']
        ",
    )
    .start();
    let response = pool.ask(&FastcgiRequest::get("/"));
    let Some(Received::Stdout(1, first)) = response.said.first() else { panic!("{response:?}") };
    assert!(first.starts_with(b"Status: 200 OK\r\n"), "{response:?}");
    assert_eq!(response.text(), "response");
    pool.await_times("long before the head\n", 10_000);
    pool.stop();
}

#[test]
fn f34_a_response_without_a_body_has_headers_and_the_end_of_stdout() {
    let pool = PoolSetup::new(
        "
        def application(environ, start_response):
            start_response('204 No Content', [])
            return []
        ",
    )
    .start();
    let response = pool.ask(&FastcgiRequest::get("/"));
    assert_eq!((response.valid().status, response.valid().body.len()), (204, 0));
    let [Received::Stdout(1, _), Received::StdoutEnd(1), Received::End(1, _)] = &response.said[..]
    else {
        panic!("{response:?}")
    };
    pool.stop();
}

#[test]
fn f36_the_status_travels_as_a_field_and_never_as_a_line_of_http() {
    let pool = PoolSetup::new(
        "
        def application(environ, start_response):
            start_response(environ['PATH_INFO'][1:], [('Location', 'http://example.org/')])
            return [b'']
        ",
    )
    .start();
    // Names of scripts and variables that mean another kind of response elsewhere change nothing.
    for name in ["/app.wsgi", "/nph-app.wsgi"] {
        let request = FastcgiRequest::get("/302 Found")
            .param("SCRIPT_NAME", name)
            .param("SERVER_PROTOCOL", "HTTP/1.1");
        let response = pool.ask(&request);
        assert!(response.stdout.starts_with(b"Status: 302 Found\r\n"), "{response:?}");
        assert_eq!(
            (response.valid().status, response.valid().all("Location")),
            (302, vec!["http://example.org/"])
        );
    }
    pool.stop();
}

#[test]
fn f37_nothing_is_sent_before_the_parameters_are_complete() {
    let pool = PoolSetup::new(ECHO).start();
    let mut connection = pool.connect();
    let request = FastcgiRequest::get("/").keep().param("CONTENT_LENGTH", "nonsense");
    let before = request.before_body();
    connection.send(&before[..before.len() - 8]);
    // Others are served by the same thread afterwards, so that it has seen all of it.
    pool.ask(&FastcgiRequest::get("/other"));
    assert!(!connection.has_more());
    connection.send(&before[before.len() - 8..]);
    assert_eq!(connection.response().valid().status, 400);
    pool.stop();
}

#[test]
fn f38_a_response_may_begin_and_end_before_the_body_has_arrived() {
    let pool = PoolSetup::new(
        "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            yield b'begun'
            if environ['PATH_INFO'] == '/reads':
                yield environ['wsgi.input'].read()
        ",
    )
    .start();
    let mut connection = pool.connect();
    let request = FastcgiRequest::post("/reads", "body").keep();
    connection.send(&request.before_body());
    let Some(Received::Stdout(1, begun)) = connection.next() else { panic!("no response") };
    assert!(begun.ends_with(b"begun"));
    connection.send(&request.stdin(b"body"));
    connection.send(&request.end_of_stdin());
    assert!(connection.response().stdout.ends_with(b"body"));
    let request = FastcgiRequest::post("/does not", "body").keep();
    connection.send(&request.before_body());
    assert_eq!(connection.response().text(), "begun");
    connection.send(&request.stdin(b"body"));
    connection.send(&request.end_of_stdin());
    assert_eq!(connection.ask(&FastcgiRequest::get("/").keep()).text(), "begun");
    pool.stop();
}

#[test]
fn f39_a_body_is_never_longer_than_its_content_length() {
    let pool = PoolSetup::new(ECHO).start();
    let mut connection = pool.connect();
    for sent in ["body and more", &"body".repeat(50_000)] {
        let request = FastcgiRequest::post("/", "body").keep().body(sent);
        assert_eq!(connection.ask(&request).text(), "/|body");
        assert_eq!(connection.ask(&FastcgiRequest::get("/after").keep()).text(), "/after|");
    }
    pool.stop();
}

#[test]
fn f39_a_body_without_a_length_reaches_to_its_end() {
    let pool = PoolSetup::new(ECHO).start();
    let mut connection = pool.connect();
    for length in [0, 1, 100_000] {
        let request =
            FastcgiRequest::post("/", vec![b'x'; length]).keep().without("CONTENT_LENGTH");
        assert_eq!(connection.ask(&request).text().len(), 2 + length);
        // Caddy's word for a length that it does not know.
        assert_eq!(connection.ask(&request.param("CONTENT_LENGTH", "-1")).text().len(), 2 + length);
    }
    pool.stop();
}

#[test]
fn f40_a_body_that_is_shorter_than_its_content_length_is_not_taken_as_complete() {
    let mut pool = PoolSetup::new(TELLS).start();
    let mut connection = pool.connect();
    for (path, sent) in [("/body/raise/some", "so"), ("/body/raise/none", "")] {
        let request = FastcgiRequest::post(path, "some more").keep().body(sent);
        let response = connection.ask(&request);
        assert_eq!(response.end.protocol_status, ProtocolStatus::RequestComplete);
        assert!(response.valid().status >= 400, "{response:?}");
        pool.await_log(&format!("not read {path} ConnectionResetError"));
    }
    pool.stop();
}

#[test]
fn f41_a_response_ends_with_the_status_of_success_and_a_response_that_is_cut_does_not_end() {
    let pool = PoolSetup::new(
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
    let mut connection = pool.connect();
    let response = connection.ask(&FastcgiRequest::get("/").keep());
    assert_eq!(response.text(), "begun over");
    let [.., Received::StdoutEnd(1), Received::End(1, end)] = &response.said[..] else {
        panic!("{response:?}")
    };
    assert_eq!(
        *end,
        EndRequest { app_status: 0, protocol_status: ProtocolStatus::RequestComplete }
    );
    connection.send(&FastcgiRequest::get("/raises").keep().bytes());
    let cut = connection.try_response();
    let reported = cut.as_ref().is_ok_and(|response| {
        response.as_ref().is_some_and(|response| response.end.app_status != 0)
    });
    assert!(cut.is_err() || reported, "a response that was cut looks whole: {cut:?}");
    pool.stop();
}

#[test]
fn f42_an_authorizer_has_no_body_and_its_response_is_unchanged() {
    let pool = PoolSetup::new(
        "
        def application(environ, start_response):
            body = environ['wsgi.input'].read()
            if environ.get('HTTP_AUTHORIZATION') == 'Basic eDp5':
                start_response('200 OK', [('Variable-AUTH_METHOD', 'database lookup'), \
                ('Content-Type', 'text/plain')])
                return []
            start_response('401 Unauthorized', [('WWW-Authenticate', 'Basic'), ('Content-Type', \
            'text/plain')])
            return [b'who are you?' + body]
        ",
    )
    .start();
    let mut connection = pool.connect();
    let request =
        FastcgiRequest::get("").keep().role(2).without("PATH_INFO").without("SCRIPT_NAME");
    let refused = connection.ask(&request).valid();
    assert_eq!((refused.status, refused.body.as_slice()), (401, &b"who are you?"[..]));
    let passed =
        connection.ask(&request.clone().param("HTTP_AUTHORIZATION", "Basic eDp5").id(2)).valid();
    assert_eq!((passed.status, passed.all("Variable-AUTH_METHOD")), (200, vec!["database lookup"]));
    // A web server that leaves the length in must not be waited for.
    let refused = connection.ask(&request.clone().param("CONTENT_LENGTH", "100").id(3));
    assert!(refused.valid().status >= 400);
    let mut last = pool.connect();
    assert_eq!(last.ask(&FastcgiRequest::get("/").role(2)).valid().status, 401);
    last.assert_closed();
    pool.stop();
}
