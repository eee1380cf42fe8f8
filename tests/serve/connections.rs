//! Connections byte by byte: keep-alive, pipelining, HTTP/1.0, slow clients, and what breaks HTTP.

use std::{
    io::{Read as _, Write as _},
    net::Shutdown,
};

use crate::serve::Serve;

/// Responds with method, path and request body.
const ECHO: &str = "
    def app(environ, start_response):
        body = environ['wsgi.input'].read()
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [f\"<{environ['REQUEST_METHOD']} {environ['PATH_INFO']} {body!r}>\".encode()]
    ";

/// The texts in `<>` of a response or several.
fn answers(text: &str) -> Vec<&str> {
    text.split('<').skip(1).filter_map(|rest| rest.split('>').next()).collect()
}

#[test]
fn requests_of_one_connection_are_answered_in_their_order() {
    let serve = Serve::start(ECHO, &[]);
    let text = serve.exchange(
        b"GET /1 HTTP/1.1\r\nHost: localhost\r\n\r\n\
          POST /2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc\
          POST /3 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
          2\r\nde\r\n1;x=y\r\nf\r\n0\r\nTrailer: x\r\n\r\n\
          GET /4 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(answers(&text), ["GET /1 b''", "POST /2 b'abc'", "POST /3 b'def'", "GET /4 b''"]);
    serve.stop();
}

#[test]
fn http_1_0_ends_with_its_connection_unless_it_is_kept() {
    let serve = Serve::start(ECHO, &[]);
    let text = serve.exchange(b"GET /old HTTP/1.0\r\n\r\n");
    assert_eq!(answers(&text), ["GET /old b''"]);
    assert!(text.starts_with("HTTP/1.0 200") && !text.contains("chunked"), "{text}");
    let text = serve.exchange(
        b"GET /kept HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /last HTTP/1.0\r\n\r\n",
    );
    assert_eq!(answers(&text), ["GET /kept b''", "GET /last b''"]);
    serve.stop();
}

#[test]
fn a_client_that_sends_byte_by_byte_is_answered() {
    let serve = Serve::start(ECHO, &[]);
    let mut stream = serve.connect(b"");
    stream.set_nodelay(true).unwrap();
    let request = b"POST /slow HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\
        Connection: close\r\n\r\n2\r\nab\r\n0\r\n\r\n";
    for byte in request {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(answers(&text), ["POST /slow b'ab'"]);
    serve.stop();
}

#[test]
fn a_client_that_has_sent_its_request_and_waits_on_is_answered() {
    let serve = Serve::start(ECHO, &[]);
    let mut stream = serve.connect(b"GET /half HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.shutdown(Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(answers(&text), ["GET /half b''"]);
    serve.stop();
}

#[test]
fn what_proxies_could_read_in_two_ways_is_refused() {
    let serve = Serve::start(ECHO, &[]);
    for (name, request) in [
        ("two framings", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("two framings", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"),
        ("two lengths", "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        ("a list of lengths", "Content-Length: 3, 4\r\n\r\nabcd"),
        ("a signed length", "Content-Length: +3\r\n\r\nabc"),
        ("an empty length", "Content-Length:\r\n\r\nabc"),
        ("a large length", "Content-Length: 99999999999999999999\r\n\r\nabc"),
        ("another coding", "Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n"),
        ("chunked twice", "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
        ("chunked first", "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        ("a hidden coding", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("a space in a name", "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        ("a folded header", "A: b\r\n c\r\n\r\n"),
        ("a folded first header", " A: b\r\n\r\n"),
        ("a NUL", "A: b\0c\r\n\r\n"),
        ("a CR", "A: b\rc\r\n\r\n"),
        ("a header without colon", "A\r\n\r\n"),
        ("a bare LF", "A: b\nC: d\r\n\r\n"),
        ("a bare LF at the end", "A: b\r\n\n"),
        ("no chunk size", "Transfer-Encoding: chunked\r\n\r\n\r\n\r\n"),
        ("a word as chunk size", "Transfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        ("a prefixed chunk size", "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n"),
        ("a negative chunk size", "Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n"),
        ("a large chunk size", "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n"),
        ("a long chunk", "Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n"),
        ("a bare LF after a size", "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n"),
        ("a bare LF after a chunk", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n"),
        ("a bare LF in trailers", "Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\r\n"),
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: localhost\r\n{request}");
        let next = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let text = serve.exchange(format!("{request}{next}").as_bytes());
        assert!(text.starts_with("HTTP/1.1 400 "), "{name}: {text}");
        assert_eq!(answers(&text), [""; 0], "{name}: {text}");
    }
    for start in [
        "GET / HTTP/1.1\nHost: localhost\n\n",
        "GET  / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n",
    ] {
        let text = serve.exchange(start.as_bytes());
        assert!(text.starts_with("HTTP/1.") && text.contains(" 400 "), "{start:?}: {text}");
    }
    let text = serve.exchange(b"GET /on HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(answers(&text), ["GET /on b''"]);
    serve.stop();
}
