//! The role of a filter: a request that comes with a file (FastCGI 1.0, 6.4).

use fastcgi_server::bodies::ProtocolStatus;

use crate::{
    pool::{ECHO, only_log_message},
    support::{
        assertions::codes,
        fastcgi_client::{ABORT_REQUEST, FastcgiConnection, FastcgiRequest, PARAMS, record},
        pool::{Pool, PoolSetup},
    },
};

/// Type of the file's records (FastCGI 1.0, 8).
const DATA: u8 = 8;

/// Turns its file into capitals, with its body behind, or does what its path says.
const FILTER: &str = "
    def application(environ, start_response):
        path, data = environ['PATH_INFO'], environ['wsgate.data']
        if path == '/tells':
            print('called')
        start_response('200 OK', [('Content-Type', 'text/plain')])
        if path == '/ignores':
            return [b'x' * 3000000]
        if path == '/lines':
            return [b'%d:%s' % pair for pair in enumerate(data)]
        if path == '/twice':
            return [data.read(), b'|', data.read(), b'|', environ['wsgi.input'].read()]
        if path == '/replies first':
            return replies_first(environ)
        return [data.read().upper(), b'|', environ['wsgi.input'].read()]

    def replies_first(environ):
        for _ in range(100):
            yield b'x' * 30000
        yield b'|%d' % len(environ['wsgate.data'].read())
        yield b'|%d' % len(environ['wsgi.input'].read())
    ";

fn filter() -> Pool {
    PoolSetup::new(FILTER).start()
}

fn ask(path: &str, body: &[u8], file: &[u8]) -> FastcgiRequest {
    FastcgiRequest::post(path, body)
        .role(3)
        .keep()
        .param("FCGI_DATA_LENGTH", file.len().to_string())
        .param("FCGI_DATA_LAST_MOD", "1700000000")
}

/// A file as records of `FCGI_DATA`, with their end.
fn data(file: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = file.chunks(0xffff).flat_map(|piece| record(DATA, 1, piece)).collect();
    bytes.extend(record(DATA, 1, b""));
    bytes
}

/// The answer to a request with a file, all sent beside reading.
#[track_caller]
fn answer(wire: &mut FastcgiConnection, path: &str, body: &[u8], file: &[u8]) -> String {
    let sent = wire.send_beside([ask(path, body, file).bytes(), data(file)].concat());
    let answer = wire.response();
    sent.join().unwrap().unwrap();
    answer.text()
}

#[test]
fn f43_a_filter_reads_its_file_beside_its_body() {
    let pool = filter();
    let mut wire = pool.connect();
    assert_eq!(answer(&mut wire, "/", b"body", b"the file"), "THE FILE|body");
    assert_eq!(answer(&mut wire, "/", b"", b""), "|");
    assert_eq!(answer(&mut wire, "/lines", b"body", b"one\ntwo\nthree"), "0:one\n1:two\n2:three");
    assert_eq!(answer(&mut wire, "/twice", b"body", b"the file"), "the file||body");
    let (body, file) = (vec![b'b'; 3_000_000], vec![b'f'; 5_000_000]);
    let whole = answer(&mut wire, "/", &body, &file);
    assert_eq!((whole.len(), whole.find('|')), (8_000_001, Some(5_000_000)));
    // In pieces of one byte.
    for byte in [ask("/", b"body", b"the file").bytes(), data(b"the file")].concat() {
        wire.send(&[byte]);
    }
    assert_eq!(wire.response().text(), "THE FILE|body");
    // A responder behind it has no file, whatever its variables say.
    let after = FastcgiRequest::get("/").keep().param("FCGI_DATA_LENGTH", "none");
    wire.send(&after.bytes());
    assert_eq!(wire.response().valid().status, 500, "environ has no wsgate.data");
    let log = pool.stop();
    assert!(only_log_message(&log, "W0501").contains("KeyError: 'wsgate.data'"), "{log}");
}

#[test]
fn f43_nothing_is_said_before_the_body_is_over() {
    let pool = PoolSetup::new(FILTER).args(&["--threads", "2"]).start();
    let mut wire = pool.connect();
    for path in ["/tells", "/ignores", "/unreadable"] {
        let mut ask = ask(path, b"body", b"file");
        if path == "/unreadable" {
            ask = ask.param("SERVER_PORT", "none");
        }
        wire.send(&ask.before_body());
        wire.send(&ask.stdin(b"bo"));
        // The other thread serves others meanwhile; the application of this one is not called.
        assert_eq!(answer(&mut pool.connect(), "/", b"", b"other"), "OTHER|");
        assert!(!wire.has_more(), "{path}");
        wire.send(&ask.stdin(b"dy"));
        assert!(!wire.has_more(), "{path}");
        wire.send(&ask.end_of_stdin());
        wire.send(&data(b"file"));
        let status = if path == "/unreadable" { 400 } else { 200 };
        assert_eq!(wire.response().valid().status, status, "{path}");
    }
    pool.stop();
}

#[test]
fn f43_a_response_that_does_not_read_the_file_is_whole_and_the_connection_lives_on() {
    let pool = filter();
    let mut wire = pool.connect();
    let file = vec![b'f'; 4_000_000];
    assert_eq!(answer(&mut wire, "/ignores", b"body", &file).len(), 3_000_000);
    assert_eq!(answer(&mut wire, "/", b"body", b"after"), "AFTER|body");
    // A web server that reads nothing before it has sent everything.
    wire.send(&[ask("/replies first", b"body", &file).bytes(), data(&file)].concat());
    assert!(wire.response().text().ends_with("x|4000000|4"));
    assert_eq!(answer(&mut wire, "/", b"body", b"after"), "AFTER|body");
    pool.stop();
}

#[test]
fn f44_a_file_of_another_length_than_was_announced_is_not_taken_for_a_whole_one() {
    let mut pool = PoolSetup::new(
        "
        def application(environ, start_response):
            try:
                said = environ['wsgate.data'].read()
            except OSError as error:
                print('not read:', error)
                said = b'cut'
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [said]
        ",
    )
    .start();
    let mut wire = pool.connect();
    let announced = |length: &str| ask("/", b"", b"").param("FCGI_DATA_LENGTH", length);
    let ask_with = |wire: &mut FastcgiConnection, length: &str| {
        wire.send(&[announced(length).bytes(), data(b"the file")].concat());
        wire.response()
    };
    assert_eq!(ask_with(&mut wire, "9").text(), "cut");
    pool.await_log("not read: the file of the filter ended after 8 of 9 bytes");
    assert_eq!(ask_with(&mut wire, "8").text(), "the file");
    assert_eq!(ask_with(&mut wire, "3").text(), "the", "never more than was announced");
    assert_eq!(
        ask_with(&mut wire, "").text(),
        "the file",
        "without a length the end of the stream is the end"
    );
    for nonsense in ["-1", "+8", "8 ", "eight", "99999999999999999999999"] {
        assert_eq!(ask_with(&mut wire, nonsense).valid().status, 400, "{nonsense}");
    }
    assert_eq!(ask_with(&mut wire, "8").text(), "the file");
    // The connection ends within the file.
    let wire = pool.connect();
    wire.send(&announced("20").bytes());
    wire.send(&record(DATA, 1, b"the "));
    drop(wire);
    pool.await_log("not read: the file of the filter ended after 4 of 20 bytes");
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0401"; 5], "{log}");
}

#[test]
fn a_filter_that_is_aborted_or_left_before_its_body_is_over_is_never_called() {
    let pool = filter();
    let ask = ask("/tells", b"body", b"file");
    let mut wire = pool.connect();
    wire.send(&ask.before_body());
    wire.send(&ask.stdin(b"bo"));
    wire.send(&record(ABORT_REQUEST, 1, b""));
    let aborted = wire.response();
    assert_eq!(
        (aborted.said.len(), aborted.end.protocol_status),
        (1, ProtocolStatus::RequestComplete)
    );
    assert_eq!(answer(&mut wire, "/", b"body", b"after"), "AFTER|body");
    let left = pool.connect();
    left.send(&ask.before_body());
    drop(left);
    // Parameters that are none at all.
    wire.send(&ask.begin());
    wire.send(&[record(PARAMS, 1, b"\x09\x05HTTP"), record(PARAMS, 1, b"")].concat());
    let refused = wire.response();
    assert_eq!((refused.said.len(), refused.end.app_status), (1, 1));
    assert_eq!(answer(&mut wire, "/", b"body", b"after"), "AFTER|body");
    let log = pool.stop();
    assert!(!log.contains("called"), "{log}");
    assert_eq!(codes(&log), ["W0401"], "{log}");
}

#[test]
fn an_application_that_knows_nothing_of_filters_is_a_responder_to_them() {
    let pool = PoolSetup::new(ECHO).start();
    let mut wire = pool.connect();
    assert_eq!(answer(&mut wire, "/path", b"body", b"the file"), "/path|body");
    assert_eq!(answer(&mut wire, "/path", b"body", &vec![b'f'; 1_000_000]), "/path|body");
    pool.stop();
}
