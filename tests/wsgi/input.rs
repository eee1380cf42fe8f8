//! *Input and Error Streams*, the reading half: W21–W24, W48, W49.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
};

use crate::support::{
    child_process::{RunningProcess, piped},
    probe::{Implementation, Probe},
};

/// An application that answers with what `expression` is worth, where `input` is `wsgi.input`.
fn reading(expression: &str) -> Probe {
    Probe::new(&format!(
        "
        def application(environ, start_response):
            input = environ['wsgi.input']
            try:
                answer = repr({expression})
            except Exception as error:
                answer = type(error).__mro__[-4].__name__ + ': ' + str(error)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [answer.encode()]
        "
    ))
}

const LINES: &str = "one\ntwo\n\nfour";

#[test]
fn w21_the_input_reads_as_a_file_of_bytes_does() {
    for (expression, answer) in [
        ("input.read(5)", "b'one\\nt'"),
        ("input.readline()", "b'one\\n'"),
        ("input.readlines()", "[b'one\\n', b'two\\n', b'\\n', b'four']"),
        ("list(input)", "[b'one\\n', b'two\\n', b'\\n', b'four']"),
        (
            "[input.read(0), input.read(3), input.readline(), input.readline()]",
            "[b'', b'one', b'\\n', b'two\\n']",
        ),
        (
            "[next(input), input.read(2), input.readlines()]",
            "[b'one\\n', b'tw', [b'o\\n', b'\\n', b'four']]",
        ),
        ("iter(input) is input", "True"),
    ] {
        reading(expression)
            .post(LINES)
            .both(|response| assert_eq!(response.text(), answer, "{expression}"));
    }
}

#[test]
fn w21_a_hint_stops_after_the_line_that_reaches_it() {
    for (hint, lines) in [
        ("0", "[b'one\\n', b'two\\n', b'\\n', b'four']"),
        ("1", "[b'one\\n']"),
        ("3", "[b'one\\n']"),
        ("5", "[b'one\\n', b'two\\n']"),
        ("-1", "[b'one\\n', b'two\\n', b'\\n', b'four']"),
        ("None", "[b'one\\n', b'two\\n', b'\\n', b'four']"),
    ] {
        let expression = format!("input.readlines({hint})");
        reading(&expression)
            .post(LINES)
            .both(|response| assert_eq!(response.text(), lines, "{expression}"));
    }
}

#[test]
fn w22_reading_without_a_size_gives_the_rest_and_then_nothing() {
    reading(
        "[input.read(4), input.read(), input.read(), input.read(1), input.readline(), \
         input.readlines()]",
    )
    .post(LINES)
    .both(|response| assert_eq!(response.text(), r"[b'one\n', b'two\n\nfour', b'', b'', b'', []]"));
    reading("[input.read(-1), input.read(-1)]")
        .post("x")
        .both(|response| assert_eq!(response.text(), "[b'x', b'']"));
    reading("[input.read(None), input.readline(None)]")
        .post("x")
        .both(|response| assert_eq!(response.text(), "[b'x', b'']"));
}

#[test]
fn w23_the_input_ends_at_content_length_though_more_could_be_read() {
    // The reference reads on to the end of the stream.
    for expression in ["input.read()", "input.read(100)", "b''.join(input)", "input.readline()"] {
        let response = reading(expression).post("abc").stdin("abcdef\n").run();
        assert_eq!(response.text(), "b'abc'", "{expression}");
    }
}

/// The response of `probe` while standard input stays open, as a web server may leave it.
fn response_with_open_input(probe: Probe) -> String {
    let mut child = probe.start();
    let kept_open = child.stdin.take().unwrap();
    let mut response = String::new();
    child.stdout.take().unwrap().read_to_string(&mut response).unwrap();
    child.wait().unwrap();
    drop(kept_open);
    response
}

#[test]
fn w23_no_content_length_is_no_body_and_never_a_wait() {
    let probe = reading("(input.read(), input.read(10), input.readline())");
    let response = response_with_open_input(probe);
    assert!(response.ends_with("(b'', b'', b'')"), "{response}");
}

#[test]
fn w23_a_read_of_no_bytes_does_not_wait() {
    let probe = reading("(input.read(0), input.read1(0), input.readline(0))").post("never sent");
    let response = response_with_open_input(probe);
    assert!(response.ends_with("(b'', b'', b'')"), "{response}");
}

#[test]
fn w24_readline_stops_at_a_size() {
    reading("[input.readline(2), input.readline(9), input.readline(0), input.readline(-1)]")
        .post(LINES)
        .both(|response| assert_eq!(response.text(), r"[b'on', b'e\n', b'', b'two\n']"));
}

#[test]
fn w21_sizes_around_the_buffer_come_back_byte_for_byte() {
    for length in [0, 1, 8191, 8192, 8193, 65_535, 65_536, 65_537, 131_072, 200_001] {
        let body: Vec<u8> = (0..length).map(|index| (index * 7 % 251) as u8).collect();
        let digest = format!(
            "__import__('hashlib').sha256(input.read()).hexdigest() == {:?}",
            sha256(&body)
        );
        reading(&digest)
            .post(&body)
            .both(|response| assert_eq!(response.text(), "True", "{length}"));
        let by_pieces = format!(
            "b''.join(iter(lambda: input.read(1000), b'')) == bytes(i * 7 % 251 for i in \
             range({length}))"
        );
        reading(&by_pieces)
            .post(&body)
            .both(|response| assert_eq!(response.text(), "True", "{length}"));
    }
}

fn sha256(bytes: &[u8]) -> String {
    let mut child = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()[..64].to_owned()
}

#[test]
fn w21_a_size_that_is_no_number_is_a_type_error() {
    reading("input.read('1')")
        .post("x")
        .both(|response| assert!(response.text().contains("rror: "), "{}", response.text()));
    let response = reading("input.read(1.5)").post("x").run();
    assert_ne!(response.text(), "b'x'");
}

#[test]
fn w21_a_huge_size_takes_no_memory_of_its_own() {
    // The reference runs out of memory here.
    assert_eq!(reading("input.read(2**62)").post("abc").run().text(), "b'abc'");
}

#[test]
fn w22_a_body_that_ends_early_raises_an_os_error_that_says_where() {
    // The reference gives out the part as if it were the whole.
    for expression in
        ["input.read()", "input.read(10)", "input.readline()", "list(input)", "input.readlines()"]
    {
        let response = reading(expression).post("0123456789").stdin("01234").run();
        assert!(
            response.text().contains("the request body ended after 5 of 10 bytes"),
            "{expression}: {}",
            response.text()
        );
        assert!(response.text().starts_with("OSError"), "{expression}: {}", response.text());
    }
    let part = reading("input.read(5)").post("0123456789").stdin("01234").run();
    assert_eq!(part.text(), "b'01234'");
}

#[test]
fn w48_the_application_runs_before_the_body_has_come() {
    let code = "
        def application(environ, start_response):
            write = start_response('200 OK', [('Content-Type', 'text/plain')])
            write(b'ready\\n')
            return [environ['wsgi.input'].readline()]
        ";
    let probe = Probe::new(code).post("go on\n");
    let mut child = probe.start();
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = String::new();
    while !seen.ends_with("ready\n") {
        let mut byte = [0];
        assert_eq!(stdout.read(&mut byte).unwrap(), 1, "{seen}");
        seen.push(char::from(byte[0]));
    }
    child.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    stdout.read_to_string(&mut seen).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(seen.ends_with("\r\n\r\nready\ngo on\n"), "{seen}");
}

#[test]
fn w49_a_chunked_body_is_read_to_its_end_without_a_length() {
    let response = reading("(input.read(), environ['HTTP_TRANSFER_ENCODING'])")
        .variable("REQUEST_METHOD", "POST")
        .variable("HTTP_TRANSFER_ENCODING", "chunked")
        .stdin("put together by the front")
        .run();
    assert_eq!(response.text(), "(b'put together by the front', 'chunked')");
}

#[test]
fn an_input_that_is_kept_beyond_its_request_reads_nothing_more() {
    let code = "
        import atexit, sys
        def application(environ, start_response):
            def late():
                try:
                    print(environ['wsgi.input'].read())
                except RuntimeError as error:
                    print('late:', error)
            atexit.register(late)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'x']
        ";
    let response = Probe::new(code).post("unread").run();
    assert_eq!(response.log, "late: wsgi.input was read after its request was over\n");
}

#[test]
fn two_threads_that_read_at_once_get_every_byte_once() {
    let code = "
        import threading
        def application(environ, start_response):
            got = []
            def read():
                while True:
                    piece = environ['wsgi.input'].read(7)
                    if not piece:
                        return
                    got.append(piece)
            threads = [threading.Thread(target=read) for _ in range(4)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [str(sorted(b''.join(got)) == sorted(b'abcdefghij' * 2000)).encode()]
        ";
    assert_eq!(Probe::new(code).post("abcdefghij".repeat(2000)).run().text(), "True");
}

/// Goes to and fro in its body, and says what is wrong with what it finds there.
const TO_AND_FRO: &str = "
    import io
    def wrong(i, length):
        whole = bytes(n * 7 % 251 for n in range(251)) * (length // 251 + 1)
        whole = whole[:length]
        like, seen = io.BytesIO(whole), []
        def same(*call):
            name, *arguments = call
            if getattr(i, name)(*arguments) != getattr(like, name)(*arguments):
                seen.append(call)
        for call in [('read', 10), ('tell',), ('seek', 0), ('read',), ('read', 5), ('tell',), \
        ('seek', -3, 2), ('read',),
                     ('seek', length + 50), ('tell',), ('read',), ('seek', 5), ('readline',), \
                     ('seek', -2, 1), ('read', 7),
                     ('seek', 4000, 1), ('read', 70000), ('seek', 0, 2), ('read1', 1), ('seek', \
                     1), ('readlines',), ('tell',)]:
            same(*call)
        return seen
    def application(environ, start_response):
        i = environ['wsgi.input']
        try:
            answer = (i.seekable(), wrong(i, int(environ['CONTENT_LENGTH'])))
        except OSError as error:
            answer = type(error).__name__
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [repr(answer).encode()]
    ";

fn body_of(length: usize) -> Vec<u8> {
    (0..251).map(|index| (index * 7 % 251) as u8).cycle().take(length).collect()
}

#[test]
fn w21_a_body_of_256_kib_can_be_read_again_and_a_greater_one_only_from_a_file() {
    for length in [5, 250, 65_536, 65_537, 1 << 18] {
        let response = Probe::new(TO_AND_FRO).post(body_of(length)).run();
        assert_eq!(response.text(), "(True, [])", "{length}");
    }
    let piped_body = Probe::new(TO_AND_FRO).post(body_of((1 << 18) + 1)).run();
    assert_eq!(piped_body.text(), "'UnsupportedOperation'");
    assert_eq!(reading("input.seekable()").post(body_of((1 << 18) + 1)).run().text(), "False");
    for (length, skipped) in [((1 << 18) + 1, 0), (3_000_000, 4), (300, 4)] {
        let probe = Probe::new(TO_AND_FRO)
            .variable("REQUEST_METHOD", "POST")
            .variable("CONTENT_LENGTH", length.to_string());
        let path = probe.directory().join("body");
        // The body ends before its file does.
        std::fs::write(
            &path,
            [&vec![b'-'; skipped], body_of(length).as_slice(), b"behind it"].concat(),
        )
        .unwrap();
        let mut file = File::open(&path).unwrap();
        file.seek(SeekFrom::Start(skipped as u64)).unwrap();
        let mut command = probe.command(Implementation::Wsgate);
        let ended = RunningProcess::start(piped(&mut command).stdin(file)).end();
        assert!(ended.text().ends_with("\r\n\r\n(True, [])"), "{length}: {ended:?}");
    }
}

#[test]
fn a_body_for_which_there_is_no_memory_raises_memory_error() {
    for expression in
        ["read()", "read(10 ** 9)", "readline()", "readinto(bytearray(1))", "readlines()"]
    {
        let large = 48 << 20;
        let response = Probe::new(&format!(
            "
            import resource
            def application(environ, start_response):
                with open('/proc/self/statm') as statm:
                    size = int(statm.read().split()[0]) * resource.getpagesize()
                resource.setrlimit(resource.RLIMIT_AS, (size + (16 << 20), resource.RLIM_INFINITY))
                try:
                    environ['wsgi.input'].{expression}
                    answer = b'read'
                except MemoryError:
                    answer = b'MemoryError'
                resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, \
                resource.RLIM_INFINITY))
                start_response('200 OK', [('Content-Type', 'text/plain')])
                return [answer]
            "
        ))
        .post(vec![b'x'; large])
        .run();
        let expected = if expression.starts_with("readinto") { "read" } else { "MemoryError" };
        assert_eq!(response.text(), expected, "{expression}: {response:?}");
    }
}
