//! The body of a request: RFC 3875 section 4.2.

use std::{
    fs::File,
    io::{Seek as _, Write as _},
    thread,
    time::{Duration, Instant},
};

use rustix::io::ioctl_fionread;

use crate::support::{
    assertions::{codes, complete_response, only_log_message},
    child_process::{
        RunningProcess, piped, {self},
    },
    probe::{Implementation, Probe},
};

/// Answers with what `read()` gives, or with the exception that it raises.
const READ: &str = "
    def application(environ, start_response):
        try:
            body = environ['wsgi.input'].read()
        except OSError as error:
            body = ('%s: %s' % (type(error).__name__, error)).encode()
        start_response('200 OK', [('Content-Type', 'application/octet-stream')])
        return [body]
    ";

#[test]
fn c20_no_more_is_read_than_content_length_even_if_more_is_there() {
    // CGIHandler hands out the whole stream.
    for (length, expected) in [("5", "12345"), ("1", "1"), ("0", ""), ("10", "1234567890")] {
        let response = Probe::new(READ).post("1234567890").variable("CONTENT_LENGTH", length).run();
        let reported: &[&str] = if ["5", "1"].contains(&length) { &["W0406"] } else { &[] };
        assert_eq!((response.text().as_str(), response.codes().as_slice()), (expected, reported));
    }
}

#[test]
fn c20_the_stream_need_not_end_behind_the_body() {
    // A web server may keep its end open: a reader that waits for the end waits for ever.
    let probe = Probe::new(READ).post("12345");
    let mut running = RunningProcess::start(piped(&mut probe.command(Implementation::Wsgate)));
    let mut stdin = running.stdin.take().unwrap();
    stdin.write_all(b"12345").unwrap();
    running.await_end_of_output();
    drop(stdin);
    assert_eq!(complete_response(&running.end().stdout).body, b"12345");
}

#[test]
fn c20_a_thread_reads_the_body_in_order_while_the_response_is_sent() {
    let app = "
        import threading
        def application(environ, start_response):
            parts = []
            def read():
                try:
                    while part := environ['wsgi.input'].read1(50):
                        parts.append(part)
                except Exception as error:
                    parts.append(repr(error).encode())
            reader = threading.Thread(target=read)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            reader.start()
            yield b'.' * 1_000_000
            reader.join()
            yield b''.join(parts)
        ";
    let pieces: Vec<String> = (0..5000).map(|number| format!("{number:04}\n")).collect();
    let body = pieces.concat();
    let probe = Probe::new(app).post(body.clone());
    let mut child = piped(&mut probe.command(Implementation::Wsgate)).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let begun = Instant::now();
    // The response is blocked, since nothing reads it yet. Both threads wait for each piece.
    for piece in pieces {
        stdin.write_all(piece.as_bytes()).unwrap();
        while ioctl_fionread(&stdin).unwrap() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "the body is not read");
            thread::yield_now();
        }
    }
    let end = child.wait_with_output().unwrap();
    drop(stdin);
    let response = String::from_utf8(complete_response(&end.stdout).body).unwrap();
    let log = String::from_utf8_lossy(&end.stderr);
    assert!(response.trim_start_matches('.') == body, "the body is out of order: {log}");
}

#[test]
fn c21_a_body_that_nobody_reads_does_not_break_the_response() {
    let app = "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'not read']
        ";
    for length in [1, 70_000, 3_000_000] {
        Probe::new(app).post(vec![b'x'; length]).both(|response| {
            assert_eq!(
                (response.text().as_str(), response.exit.code(), response.log.as_str()),
                ("not read", Some(0), "")
            );
        });
    }
}

#[test]
fn c21_a_body_that_nobody_reads_does_not_break_an_error_page() {
    for app in
        ["raise RuntimeError()", "def application(environ, start_response): raise RuntimeError()"]
    {
        let response = Probe::new(app).post(vec![b'x'; 3_000_000]).run();
        assert_eq!(complete_response(&response.raw).status, 500);
        assert_eq!(response.codes().len(), 1, "{}", response.log);
    }
}

#[test]
fn c22_a_body_that_ends_early_is_an_error_that_the_application_sees() {
    // CGIHandler gives out what has come, and a cut upload looks like a whole one.
    for (body, length) in [("", "1"), ("12345", "6"), ("12345", "9000000000000000000")] {
        let response = Probe::new(READ).post(body).variable("CONTENT_LENGTH", length).run();
        let expected = format!(
            "ConnectionResetError: the request body ended after {} of {length} bytes",
            body.len()
        );
        assert_eq!((response.text(), response.log.as_str()), (expected, ""));
    }
}

#[test]
fn c22_the_received_part_of_a_body_that_ends_early_can_be_read() {
    let app = "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            yield environ['wsgi.input'].read(3)
            yield environ['wsgi.input'].read(2)
            try:
                environ['wsgi.input'].read(1)
            except OSError:
                yield b' and no more'
        ";
    let response = Probe::new(app).post("12345").variable("CONTENT_LENGTH", "6").run();
    assert_eq!(response.text(), "12345 and no more");
}

#[test]
fn c22_an_application_that_does_not_expect_an_early_end_gives_an_error_page() {
    let app = "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [environ['wsgi.input'].read()]
        ";
    let response = Probe::new(app).post("12345").variable("CONTENT_LENGTH", "6").run();
    assert_eq!(complete_response(&response.raw).status, 500);
    assert!(
        only_log_message(&response.log, "W0501").contains("after 5 of 6 bytes"),
        "{}",
        response.log
    );
}

#[test]
fn c23_a_chunked_body_is_read_to_its_end() {
    // The front has taken the coding off and left the field as a sign.
    let body = vec![b'c'; 200_000];
    for coding in ["chunked", "Chunked", "gzip, chunked"] {
        let probe = Probe::new(READ)
            .post(&body)
            .without("CONTENT_LENGTH")
            .variable("HTTP_TRANSFER_ENCODING", coding);
        assert_eq!(probe.run().body, body, "{coding}");
    }
}

#[test]
fn c23_without_a_length_and_without_chunks_there_is_no_body() {
    // CGIHandler would wait here for the end of a stream that may never come.
    for length in [None, Some("")] {
        let probe = Probe::new(READ).post("12345");
        let probe = match length {
            None => probe.without("CONTENT_LENGTH"),
            Some(empty) => probe.variable("CONTENT_LENGTH", empty),
        };
        let response = probe.run();
        assert_eq!((response.text().as_str(), response.log.as_str()), ("", ""));
    }
}

#[test]
fn c23_a_content_length_overrides_a_transfer_coding() {
    let probe = Probe::new(READ)
        .post("12345")
        .variable("CONTENT_LENGTH", "3")
        .variable("HTTP_TRANSFER_ENCODING", "chunked");
    assert_eq!(probe.run().text(), "123");
}

#[test]
fn c20_a_body_may_come_from_a_file_and_from_its_middle() {
    // lighttpd keeps large bodies in files and hands these over.
    let probe = Probe::new(READ).post("12345");
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"before|12345|behind").unwrap();
    file.seek(std::io::SeekFrom::Start(7)).unwrap();
    let mut command = probe.command(Implementation::Wsgate);
    let ended = RunningProcess::start(piped(&mut command).stdin(file)).end();
    assert_eq!(complete_response(&ended.stdout).body, b"12345");
}

#[test]
fn c20_every_byte_arrives_through_every_kind_of_call() {
    let body: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let app = "
        import hashlib, io
        def application(environ, start_response):
            stream, whole = environ['wsgi.input'], io.BytesIO()
            whole.write(stream.read(1000))
            whole.write(stream.readline())
            whole.write(stream.readline(7))
            for line in stream.readlines(5000):
                whole.write(line)
            for line in stream:
                whole.write(line)
                if whole.tell() > 200000:
                    break
            whole.write(stream.read(10) + stream.read())
            start_response('200 OK', [('Content-Type', 'application/octet-stream')])
            return [whole.getvalue()]
        ";
    Probe::new(app)
        .post(&body)
        .both(|response| assert!(response.body == body, "{} bytes", response.body.len()));
}

#[test]
fn c22_without_standard_input_a_body_is_one_that_ends_early() {
    let probe = Probe::new(READ).post("12345");
    let nothing = File::open("/dev/null").unwrap();
    let ended =
        RunningProcess::start(piped(&mut probe.command(Implementation::Wsgate)).stdin(nothing))
            .end();
    assert!(ended.text().contains("ended after 0 of 5 bytes"), "{}", ended.text());
    assert_eq!(codes(&ended.stderr), [""; 0]);
    let ended = child_process::run(&mut probe.command(Implementation::Wsgate), "");
    assert!(ended.text().contains("ended after 0 of 5 bytes"), "{}", ended.text());
}
