//! Requests as curl sends them, and what the application finds in its environ.

use std::{fs::File, io::Write as _};

use rustix::fs::{FallocateFlags, fallocate};

use crate::{
    serve::{ENVIRON, Serve},
    support::{
        pool::{children, resident},
        web_servers::{HttpClient, eventually},
    },
};

#[test]
fn environ_has_what_pep_3333_demands() {
    let serve = Serve::start(ENVIRON, &[]);
    let port = serve.address.rsplit_once(':').unwrap().1.to_owned();
    let url = serve.url("/a%20b/c%2Fd?x=%20y&z");
    let found = HttpClient::post(&url, "abc").header("X-Own", "1").run().expect(200).json();
    for (name, value) in [
        ("REQUEST_METHOD", "POST"),
        ("SCRIPT_NAME", ""),
        ("PATH_INFO", "/a b/c/d"),
        ("QUERY_STRING", "x=%20y&z"),
        ("REQUEST_URI", "/a%20b/c%2Fd?x=%20y&z"),
        ("SERVER_NAME", "127.0.0.1"),
        ("SERVER_PORT", &port),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("CONTENT_LENGTH", "3"),
        ("CONTENT_TYPE", "application/x-www-form-urlencoded"),
        ("HTTP_X_OWN", "1"),
        ("HTTP_HOST", &serve.address),
        ("wsgi.url_scheme", "http"),
    ] {
        assert_eq!(found[name], value, "{name}");
    }
    assert_eq!(found["length"], 3);
    serve.stop();
}

#[test]
fn an_application_below_a_path_has_its_script_name() {
    let serve = Serve::start(ENVIRON, &["--script-name", "/shop", "--env", "COLOUR=red"]);
    let found = serve.get("/shop/cart").expect(200).json();
    assert_eq!((&found["SCRIPT_NAME"], &found["PATH_INFO"]), (&"/shop".into(), &"/cart".into()));
    serve.stop();
}

#[test]
fn each_request_is_a_line_with_method_path_status_and_duration() {
    let mut serve = Serve::start(ENVIRON, &[]);
    serve.get("/a?secret=1").expect(200);
    serve.running.await_log("GET /a 200 ");
    HttpClient::get(serve.url("/b")).header("Host", "evil.example").run().expect(421);
    serve.running.await_log("GET /b 421 ");
    for host in ["localhost", "shop.localhost:8000", "[::1]"] {
        HttpClient::get(serve.url("/c")).header("Host", host).run().expect(200);
    }
    let log = serve.stop().stderr;
    assert!(log.contains(" ms\n") && !log.contains("secret") && !log.contains('\u{1b}'), "{log}");
}

#[test]
fn a_response_that_its_client_has_not_received_is_a_line_that_says_so() {
    let code = "
        import os, time
        def app(environ, start_response):
            open('started', 'w').close()
            while not os.path.exists('go'):
                time.sleep(0.01)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'late']
        ";
    let mut serve = Serve::start(code, &[]);
    let request = b"GET /left HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let stream = serve.connect(request);
    eventually("the application has the request", || serve.path("started").exists());
    drop(stream);
    serve.write("go", "");
    serve.running.await_log("GET /left 200 ");
    serve.running.await_log(" ms, cut\n");
    // A client that ends only its direction still reads.
    let half = serve.connect(b"GET /half HTTP/1.1\r\nHost: localhost\r\n\r\n");
    half.shutdown(std::net::Shutdown::Write).unwrap();
    serve.running.await_log("GET /half 200 ");
    HttpClient::head(serve.url("/head")).run().expect(200);
    serve.running.await_log("HEAD /head 200 ");
    std::fs::remove_file(serve.path("go")).unwrap();
    std::fs::remove_file(serve.path("started")).unwrap();
    let _stream = serve.connect(b"GET /stopped HTTP/1.1\r\nHost: localhost\r\n\r\n");
    eventually("the application has the request", || serve.path("started").exists());
    let log = serve.stop().stderr;
    // The worker may be killed early enough for an error page.
    let stopped = log.lines().find(|line| line.contains("GET /stopped ")).unwrap();
    assert!(stopped.ends_with(", cut") || stopped.contains(" 500 "), "{log}");
    for path in ["/half", "/head"] {
        let line = log.lines().find(|line| line.contains(path)).unwrap();
        assert!(!line.ends_with(", cut"), "{log}");
    }
}

#[test]
fn bodies_come_with_a_length_or_in_chunks_and_after_100_continue() {
    let serve = Serve::start(ENVIRON, &[]);
    let file = serve.path("upload");
    File::create(&file).unwrap().write_all(&vec![b'x'; 3_000_000]).unwrap();
    let length = |client: HttpClient| client.run().expect(200).json()["length"].clone();
    let client = || HttpClient::post_file(serve.url("/"), &file);
    assert_eq!(length(client()), 3_000_000);
    assert_eq!(length(client().header("Transfer-Encoding", "chunked")), 3_000_000);
    assert_eq!(length(client().header("Expect", "100-continue")), 3_000_000);
    assert_eq!(length(client().header("Expect", "")), 3_000_000);
    serve.stop();
}

#[test]
fn a_body_of_two_gigabytes_takes_no_memory() {
    let code = "
        def app(environ, start_response):
            body, length = environ['wsgi.input'], 0
            for block in iter(lambda: body.read(1 << 20), b''):
                length += len(block)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [str(length).encode()]
        ";
    let serve = Serve::start(code, &[]);
    let file = serve.path("upload");
    let size = 2 << 30;
    fallocate(File::create(&file).unwrap(), FallocateFlags::empty(), 0, size).unwrap();
    let pid = serve.running.pid().as_raw_nonzero().get();
    let response = HttpClient::put_file(serve.url("/"), &file).run().expect(200);
    assert_eq!(response.text(), size.to_string());
    let mut pids = vec![pid];
    let mut at = 0;
    while at < pids.len() {
        pids.extend(children(pids[at]));
        at += 1;
    }
    for pid in pids {
        assert!(resident(pid) < 100 << 10, "{} kB in {pid}", resident(pid));
    }
    serve.stop();
}

#[test]
fn a_large_body_that_the_application_does_not_read_hinders_no_response() {
    let code = "
        def app(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'unread']
        ";
    let serve = Serve::start(code, &[]);
    let file = serve.path("upload");
    File::create(&file).unwrap().set_len(20 << 20).unwrap();
    for _ in 0..5 {
        let response = HttpClient::put_file(serve.url("/"), &file).run().expect(200);
        assert_eq!(response.text(), "unread");
    }
    serve.stop();
}

#[test]
fn responses_stream_and_are_cut_if_the_application_fails() {
    let code = "
        def app(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            yield b'first'
            with open('gate') as gate:
                gate.read()
            yield b'second'
            if environ['PATH_INFO'] == '/fails':
                raise ValueError
        ";
    let mut serve = Serve::start(code, &[]);
    let gate = serve.path("gate");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &gate,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    for (path, is_complete) in [("/", true), ("/fails", false)] {
        let mut stream = HttpClient::get(serve.url(path)).stream();
        stream.read_until("first");
        File::options().write(true).open(&gate).unwrap();
        let (text, is_whole) = stream.finish();
        assert_eq!((text.as_str(), is_whole), ("firstsecond", is_complete), "{path}");
    }
    serve.running.await_log("GET /fails 200 ");
    serve.running.await_log(" ms, cut");
    serve.stop();
}

#[test]
fn head_304_and_large_headers_pass() {
    let code = "
        def app(environ, start_response):
            if 'HTTP_IF_NONE_MATCH' in environ:
                start_response('304 Not Modified', [('ETag', '\"1\"')])
                return []
            name = environ.get('HTTP_X_LARGE', '')
            start_response('200 OK', [('Content-Length', '5'), ('ETag', '\"1\"'),
                ('Content-Type', 'text/plain'), ('X-Length', str(len(name)))])
            return [b'hello']
        ";
    let serve = Serve::start(code, &[]);
    let head = HttpClient::head(serve.url("/")).run().expect(200);
    assert_eq!((head.header("content-length"), head.body.len()), ("5", 0));
    let unchanged = HttpClient::get(serve.url("/")).header("If-None-Match", "\"1\"");
    let unchanged = unchanged.run().expect(304);
    assert_eq!((unchanged.header("etag"), unchanged.body.len()), ("\"1\"", 0));
    let large = HttpClient::get(serve.url("/")).header("X-Large", &"x".repeat(60_000)).run();
    assert_eq!(large.expect(200).header("x-length"), "60000");
    let too_large = HttpClient::get(serve.url("/")).header("X-Large", &"x".repeat(120_000));
    assert_eq!(too_large.run().status, 400);
    serve.stop();
}
