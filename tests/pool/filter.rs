//! FastCGI's filter role, which is refused, and `FCGI_DATA`, which no other role reads
//! (FastCGI 1.0, 5.5 and 6.4).

use fastcgi_server::bodies::{EndRequest, ProtocolStatus};

use crate::{
    pool::ECHO,
    support::{
        fastcgi_client::{FastcgiRequest, Received, record},
        pool::PoolSetup,
    },
};

/// Type of the records with a filter's file (FastCGI 1.0, 8).
const DATA: u8 = 8;

/// Responds with 3 MB, then with the length of its request body.
const LARGE: &str = "
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        for _ in range(100):
            yield b'x' * 30000
        yield b'|%d' % len(environ['wsgi.input'].read())
    ";

fn filter_request(path: &str, body: &[u8], file: &[u8]) -> FastcgiRequest {
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

#[test]
fn f43_f44_a_filter_is_refused_as_an_unknown_role() {
    let pool = PoolSetup::new(
        "
        def application(environ, start_response):
            assert environ['PATH_INFO'] != '/filter', 'called for a filter'
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'%s|' % environ['PATH_INFO'].encode(), environ['wsgi.input'].read()]
        ",
    )
    .start();
    let refusal = EndRequest { app_status: 0, protocol_status: ProtocolStatus::UnknownRole };
    let mut wire = pool.connect();
    for (body, file) in [(&b""[..], &b""[..]), (b"body", b"the file"), (b"", &[b'f'; 1_000_000])] {
        // The refusal comes at once, and all that follows of the request is ignored.
        let ask = filter_request("/filter", body, file);
        let sent = wire.send_beside([ask.bytes(), data(file)].concat());
        let response = wire.response();
        assert_eq!(
            (response.said.as_slice(), response.end),
            (&[Received::End(1, refusal)][..], refusal)
        );
        sent.join().unwrap().unwrap();
        assert_eq!(wire.ask(&FastcgiRequest::post("/after", "body").keep()).text(), "/after|body");
    }
    // In pieces of one byte.
    for byte in [filter_request("/filter", b"b", b"f").bytes(), data(b"f")].concat() {
        wire.send(&[byte]);
    }
    assert_eq!(wire.response().end, refusal);
    assert_eq!(wire.ask(&FastcgiRequest::get("/after").keep()).text(), "/after|");
    // Within the body, and with the end of the connection.
    let ask = filter_request("/filter", b"body", b"file");
    let left = pool.connect();
    left.send(&ask.before_body());
    left.send(&ask.stdin(b"bo"));
    drop(left);
    assert_eq!(wire.ask(&FastcgiRequest::get("/after")).text(), "/after|");
    wire.assert_closed();
    let log = pool.stop();
    assert!(!log.contains("called for a filter"), "{log}");
}

#[test]
fn f44_data_records_disturb_no_response_of_a_responder() {
    let pool = PoolSetup::new(ECHO).start();
    let mut wire = pool.connect();
    for file in [vec![b'f'; 8], vec![b'f'; 1_000_000]] {
        let ask = FastcgiRequest::post("/path", "body").keep().param("FCGI_DATA_LENGTH", "none");
        // Before the parameters, around the body and behind it.
        let pieces = [
            ask.begin(),
            data(&file),
            ask.before_body()[ask.begin().len()..].to_vec(),
            data(&file),
            ask.stdin(b"bo"),
            data(&file),
            ask.stdin(b"dy"),
            data(&file),
            ask.end_of_stdin(),
            data(&file),
        ];
        let sent = wire.send_beside(pieces.concat());
        assert_eq!(wire.response().text(), "/path|body");
        sent.join().unwrap().unwrap();
        assert_eq!(wire.ask(&FastcgiRequest::get("/after").keep()).text(), "/after|");
    }
    pool.stop();
}

#[test]
fn f44_data_records_that_come_while_a_response_waits_for_room_do_not_block_it() {
    let pool = PoolSetup::new(LARGE).start();
    let mut wire = pool.connect();
    let file = vec![b'f'; 4_000_000];
    let ask = FastcgiRequest::post("/", "body").keep();
    // A web server that reads nothing before it has sent everything.
    let piece = [ask.before_body(), data(&file), ask.stdin(b"body"), ask.end_of_stdin()].concat();
    wire.send(&piece);
    assert!(wire.response().text().ends_with("x|4"));
    // The end of the body first: what follows belongs to no request, and is read when the response
    // has left.
    let sent = wire.send_beside([ask.bytes(), data(&file)].concat());
    assert!(wire.response().text().ends_with("x|4"));
    sent.join().unwrap().unwrap();
    assert!(wire.ask(&ask).text().ends_with("x|4"));
    pool.stop();
}
