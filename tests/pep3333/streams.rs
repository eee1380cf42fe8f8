//! Streams of the PEP as streams of Python's, and warnings that come once, in every mode.

use crate::each_mode::{MODES, Mode, ServedApp};

/// An application that treats its request body as the path says.
const READER: &str = "
    import csv, gzip, io, json, pickle, zipfile
    def as_text(i):
        return list(csv.reader(io.TextIOWrapper(i, 'utf-8', newline='')))
    def as_zip(i):
        with zipfile.ZipFile(i) as archive:
            return {name: archive.read(name).decode() for name in archive.namelist()}
    def again(i):
        first = i.read()
        i.seek(0)
        return first == i.read(), i.tell() == len(first), i.seekable()
    def buffered(i):
        return io.BufferedReader(i, 100).readlines()
    def pickled(i):
        return pickle.load(i)
    def is_stream(i):
        return [isinstance(i, io.BufferedIOBase), isinstance(i, io.IOBase), isinstance(i, \
        io.RawIOBase), i.readable(),
                i.writable(), i.isatty(), i.closed]
    def closed(i):
        with i as same:
            assert same is i
        try:
            i.read()
        except ValueError:
            return i.closed
    def no_file(i):
        said = []
        for name in 'fileno', 'detach', 'truncate':
            try:
                getattr(i, name)()
            except io.UnsupportedOperation:
                said.append(name)
        return said
    def application(environ, start_response):
        work = globals().get(environ['PATH_INFO'][1:])
        answer = work(environ['wsgi.input']) if work else None
        start_response('200 OK', [('Content-Type', 'text/plain')] if work else [])
        return [repr(answer).encode()]
    ";

/// A zip archive with the file `name`, whose content is `content`.
const ARCHIVE: &str = "UEsDBBQAAAAAAAAAIQCpMMX+BwAAAAcAAAAEAAAAbmFtZWNvbnRlbnRQSwECFAMUAAAAAAAAACEAqTDF/gcAAAAHAAAABAAAAAAAAAAAAAAAgAEAAAAAbmFtZVBLBQYAAAAAAQABADIAAAApAAAAAAA=";

#[test]
fn the_input_is_a_stream_of_python_in_every_mode() {
    let archive =
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, ARCHIVE).unwrap();
    let cases: [(&str, &[u8], &str); 9] = [
        ("/as_text", "a,\u{e9}\r\n\"1\n2\",3\r\n".as_bytes(), "[['a', '\u{e9}'], ['1\\n2', '3']]"),
        ("/as_zip", &archive, "{'name': 'content'}"),
        ("/again", &[b'x'; 100_000], "(True, True, True)"),
        ("/again", b"", "(True, True, True)"),
        ("/buffered", b"one\ntwo", "[b'one\\n', b'two']"),
        ("/pickled", b"(lp0\nI1\naI2\na.", "[1, 2]"),
        ("/is_stream", b"x", "[True, True, False, True, False, False, False]"),
        ("/closed", b"x", "True"),
        ("/no_file", b"x", "['fileno', 'detach', 'truncate']"),
    ];
    for mode in MODES {
        let mut served = ServedApp::start(mode, &[], READER);
        for (path, body, answer) in &cases {
            let response = served.request("POST", path, &[], body);
            assert_eq!(response.text(), *answer, "{mode:?} {path}");
        }
        served.stop();
    }
}

#[test]
fn a_body_of_a_get_request_without_a_length_can_be_read_again() {
    for mode in MODES {
        let mut served = ServedApp::start(mode, &[], READER);
        let response = served.request("GET", "/again", &[("CONTENT_LENGTH", "")], b"");
        assert_eq!(response.text(), "(True, True, True)", "{mode:?}");
        served.stop();
    }
}

#[test]
fn a_missing_content_type_is_logged_once_a_pool() {
    for mode in MODES {
        let mut served = ServedApp::start(mode, &[], READER);
        for _ in 0..6 {
            let response = served.request("GET", "/nothing", &[], b"");
            assert_eq!(
                (response.text().as_str(), response.header("Content-Type")),
                ("None", None),
                "{mode:?}"
            );
        }
        let log = served.stop();
        let warnings = log.matches("warning[W0506]").count();
        match mode {
            Mode::Cold => assert_eq!(warnings, 6, "{log}"),
            // The request that starts the pool is served by an interpreter of its own.
            Mode::Warm | Mode::Resident => assert_eq!(warnings, 2, "{mode:?}: {log}"),
            Mode::Preloaded(_) | Mode::NotPreloaded(_) | Mode::Lone => {
                assert_eq!(warnings, 1, "{mode:?}: {log}")
            }
        }
    }
}

#[test]
fn a_refused_head_request_gets_no_body_in_any_mode() {
    for mode in MODES {
        let mut served = ServedApp::start(mode, &[], READER);
        for (name, value) in [
            ("SERVER_PORT", "none"),
            ("CONTENT_LENGTH", "9223372036854775808"),
            ("CONTENT_LENGTH", "-1x"),
        ] {
            let response = served.request("HEAD", "/", &[(name, value)], b"");
            assert_eq!(
                (response.status.as_str(), response.body.as_slice()),
                ("400 Bad Request", &b""[..]),
                "{mode:?} {name}"
            );
            assert!(
                response.header("Content-Length").is_some_and(|length| length != "0"),
                "{mode:?}: {response:?}"
            );
        }
        served.stop();
    }
}

#[test]
fn w25_a_request_does_not_change_wsgi_errors_of_the_next() {
    let code = "
        def application(environ, start_response):
            errors, path = environ['wsgi.errors'], environ['PATH_INFO']
            if path == '/reconfigures':
                errors.reconfigure(encoding='ascii', errors='strict', line_buffering=False, \
                newline='\\r\\n')
            elif path == '/closes':
                errors.close()
            elif path == '/detaches':
                errors.detach()
            else:
                errors.write('said by %s: \\u20ac\\n' % path)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'done']
        ";
    for mode in MODES {
        let mut served = ServedApp::start(mode, &[], code);
        for spoiled in ["/reconfigures", "/closes", "/detaches"] {
            assert_eq!(served.request("GET", spoiled, &[], b"").text(), "done", "{mode:?}");
            assert_eq!(
                served.request("GET", &format!("/after{spoiled}"), &[], b"").text(),
                "done",
                "{mode:?} {spoiled}"
            );
        }
        let log = served.stop();
        for spoiled in ["/reconfigures", "/closes", "/detaches"] {
            assert!(
                log.contains(&format!("said by /after{spoiled}: \u{20ac}\n")),
                "{mode:?} {spoiled}: {log}"
            );
        }
        assert!(!log.contains("wsgate: error"), "{mode:?}: {log}");
    }
}
