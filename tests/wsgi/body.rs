//! *Specification Details*, *Buffering and Streaming*, *The write() Callable*, *Handling the
//! Content-Length Header*, *Error Handling*: W04, W05, W07–W09, W40–W44, W46, W47, W50, W57, W58.

use std::io::{Read as _, Write as _};

use crate::support::probe::{CgiResponse, Implementation, Probe};

/// An application that answers 200 with `headers` and returns `iterable`.
pub(super) fn returning(headers: &str, iterable: &str) -> Probe {
    Probe::new(&format!(
        "
        def broken(*blocks):
            for block in blocks:
                yield block
            raise RuntimeError('broken off')

        def application(environ, start_response):
            write = start_response('200 OK', [('Content-Type', 'text/plain')] + {headers})
            return {iterable}
        "
    ))
}

pub(super) fn assert_error_page(response: &CgiResponse, code: &str) {
    assert_eq!(response.status, "500 Internal Server Error");
    assert!(response.text().contains("Request id:"), "{response:?}");
    assert!(!response.text().contains("broken off"), "{response:?}");
    assert_eq!(response.codes(), [code], "{response:?}");
    assert_eq!(response.log.matches("hint: ").count(), 1, "{response:?}");
    assert!(response.exit.success());
}

#[test]
fn w04_start_response_may_be_called_in_the_first_step_of_a_generator() {
    let code = "
        def application(environ, start_response):
            start_response('203 Late', [('Content-Type', 'text/plain')])
            yield b'generated'
        ";
    Probe::new(code).both(|response| {
        assert_eq!((response.status.as_str(), response.text().as_str()), ("203 Late", "generated"))
    });
}

#[test]
fn w04_start_response_may_be_called_when_the_iterable_ends() {
    let code = "
        class Late:
            def __init__(self, start_response):
                self.start_response = start_response
            def __iter__(self):
                return self
            def __next__(self):
                self.start_response('204 No Content', [])
                raise StopIteration
        def application(environ, start_response):
            return Late(start_response)
        ";
    // The reference asserts here that headers were set before the iteration; the PEP asks no such
    // thing.
    assert_eq!(Probe::new(code).run().status, "204 No Content");
}

#[test]
fn w04_every_kind_of_iterable_is_a_body() {
    for iterable in [
        "[b'a', b'b']",
        "(b'a', b'b')",
        "iter([b'a', b'b'])",
        "(x for x in (b'a', b'b'))",
        "{b'ab': 1}",
        "map(bytes, [[97], [98]])",
    ] {
        returning("[]", iterable).both(|response| assert_eq!(response.text(), "ab", "{iterable}"));
    }
    // The old protocol of sequences is an iterable, too.
    let sequence = "type('S', (), {'__getitem__': lambda s, i: [b'a', b'b'][i]})()";
    returning("[]", sequence).both(|response| assert_eq!(response.text(), "ab"));
}

#[test]
fn w04_an_iterable_of_nothing_is_an_empty_body_of_whatever_kind_it_is() {
    for iterable in [
        "b''",
        "''",
        "bytearray()",
        "memoryview(b'')",
        "[]",
        "()",
        "{}",
        "set()",
        "iter(())",
        "range(0)",
        "(x for x in ())",
        "iter(int, 0)",
        "type('S', (str,), {})()",
        "type('S', (), {'__getitem__': lambda s, i: [][i]})()",
        "type('S', (), {'__len__': lambda s: 0, '__iter__': lambda s: iter(())})()",
        "type('S', (), {'__bool__': lambda s: 1 / 0, '__iter__': lambda s: iter((b'', b''))})()",
    ] {
        let empty = returning("[]", iterable).run();
        let found = (
            empty.status.as_str(),
            empty.text().len(),
            empty.header("Content-Length"),
            empty.log.as_str(),
        );
        assert_eq!(found, ("200 OK", 0, Some("0"), ""), "{iterable}");
        let written = returning("[]", &format!("write(b'written') and None or {iterable}")).run();
        assert_eq!(
            (written.text().as_str(), written.log.as_str(), written.exit.code()),
            ("written", "", Some(0)),
            "{iterable}"
        );
        let code = format!(
            "def application(e, start_response):\n    start_response('204 No', [])\n    return \
                {iterable}\n"
        );
        let none = Probe::new(&code).run();
        assert_eq!(
            (none.status.as_str(), none.headers.len(), none.log.as_str()),
            ("204 No", 0, ""),
            "{iterable}"
        );
    }
    // A length that is none of the blocks', and a text that gives bytes.
    returning("[]", "type('L', (list,), {'__len__': lambda s: 0})([b'a', b'b'])")
        .both(|response| assert_eq!(response.text(), "ab"));
    returning("[]", "type('T', (str,), {'__iter__': lambda s: iter([b'ab'])})('x')")
        .both(|response| assert_eq!(response.text(), "ab"));
}

#[test]
fn w05_only_iteration_length_and_close_are_used() {
    let code = "
        class Watched:
            used = []
            def __getattribute__(self, name):
                Watched.used.append(name)
                return object.__getattribute__(self, name)
            def __iter__(self):
                return iter([b'watched: '] + [repr(sorted(set(Watched.used))).encode() for _ in \
                '1'])
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return Watched()
        ";
    let response = Probe::new(code).run();
    assert_eq!(response.text(), "watched: []");
}

#[test]
fn w07_each_block_is_sent_before_the_next_is_requested() {
    let code = "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            for _ in range(3):
                yield b'ready\\n'
                environ['wsgi.input'].readline()
        ";
    let probe = Probe::new(code).post("\n\n\n");
    let mut child = probe.start();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = String::new();
    for round in 1..=3 {
        while seen.matches("ready\n").count() < round {
            let mut byte = [0];
            assert_eq!(stdout.read(&mut byte).unwrap(), 1, "{seen}");
            seen.push(char::from(byte[0]));
        }
        // The application waits for this before it makes its next block.
        stdin.write_all(b"\n").unwrap();
    }
    assert!(child.wait().unwrap().success());
}

#[test]
fn w08_no_byte_of_a_body_is_changed() {
    let all: Vec<u8> = (0..=255).chain([13, 10, 13, 10, 10, 13, 0]).collect();
    let response = |probe: &Probe, server| probe.run_on(server).body;
    let probe = returning("[]", "[bytes(range(256)), b'\\r\\n\\r\\n', b'\\n\\r\\x00']");
    assert_eq!(response(&probe, Implementation::Wsgate), all);
    assert_eq!(response(&probe, Implementation::Reference), all);
}

#[test]
fn w09_a_length_that_is_not_available_is_none() {
    for error in ["TypeError", "AttributeError", "NotImplementedError", "ValueError"] {
        let iterable = format!(
            "type('L', (list,), {{'__len__': lambda self: (_ for _ in \
             ()).throw({error}())}})([b'a', b'b'])"
        );
        let response = returning("[]", &iterable).run();
        assert_eq!(response.text(), "ab", "{error}");
    }
}

#[test]
fn w42_one_block_that_is_all_gets_its_length() {
    for (iterable, length) in [
        ("[b'12345']", Some("5")),
        ("('\u{e9}'.encode(),)", Some("2")),
        ("[]", Some("0")),
        ("[b'']", Some("0")),
        ("[b'1', b'2']", None),
        ("iter([b'1'])", None),
    ] {
        let response = returning("[]", iterable).run();
        assert_eq!(response.header("Content-Length"), length, "{iterable}");
    }
    let written = returning("[]", "[write(b'a') or b'b']");
    written.both(|response| {
        assert_eq!((response.text().as_str(), response.header("Content-Length")), ("ab", None))
    });
}

#[test]
fn w40_no_more_is_sent_than_content_length_announces() {
    let response =
        returning("[('Content-Length', '4')]", "[b'abc', b'def', b'never', b'asked for']").run();
    assert_eq!((response.text().as_str(), response.codes().as_slice()), ("abcd", &["W0505"][..]));
    let exact = returning("[('Content-Length', '6')]", "[b'abc', b'def']");
    exact.both(|response| {
        assert_eq!((response.text().as_str(), response.log.as_str()), ("abcdef", ""))
    });
}

#[test]
fn w40_a_write_beyond_content_length_raises() {
    let code = "
        def application(environ, start_response):
            write = start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', \
            '3')])
            write(b'ab')
            try:
                write(b'cd')
            except ValueError as error:
                print(error)
            return []
        ";
    let response = Probe::new(code).run();
    assert_eq!(response.text(), "abc");
    assert!(
        response.log.contains("write() was given more bytes than Content-Length announces"),
        "{}",
        response.log
    );
}

#[test]
fn w41_a_body_that_is_too_short_is_logged() {
    let response = returning("[('Content-Length', '9')]", "[b'abc']").run();
    assert_eq!((response.text().as_str(), response.codes().as_slice()), ("abc", &["W0504"][..]));
    assert!(response.log.contains("after 3 of the 9 bytes"), "{}", response.log);
}

#[test]
fn a_content_length_that_is_no_number_is_refused() {
    // A length above the maximum of a file is refused, too.
    for wrong in [
        "-1",
        "1e3",
        " 5",
        "5 ",
        "",
        "abc",
        "5, 5",
        "9223372036854775808",
        "18446744073709551616",
        "99999999999999999999999",
    ] {
        let response = returning(&format!("[('Content-Length', '{wrong}')]"), "[b'abc']").run();
        assert_error_page(&response, "W0503");
    }
}

#[test]
fn w43_what_is_written_comes_before_what_is_returned() {
    returning("[]", "[write(b'1') or write(b'2') or b'3', b'4']")
        .both(|response| assert_eq!(response.text(), "1234"));
}

#[test]
fn w50_a_response_is_passed_on_unchanged() {
    let headers = "[('Content-Encoding', 'gzip'), ('ETag', '\"x\"'), ('X-Odd', '  spaces  ')]";
    returning(headers, "[b'not gzip at all']").both(|response| {
        assert_eq!(response.text(), "not gzip at all");
        assert_eq!(response.header("X-Odd"), Some("  spaces  "));
    });
}

#[test]
fn w57_a_response_to_head_has_the_headers_of_a_get_and_no_body() {
    for (iterable, length) in [("[b'12345']", Some("5")), ("[b'1', b'2']", None), ("[]", None)] {
        let response = returning("[]", iterable).variable("REQUEST_METHOD", "HEAD").run();
        assert_eq!(
            (response.body.as_slice(), response.header("Content-Length")),
            (&b""[..], length),
            "{iterable}"
        );
        assert_eq!(response.log, "");
    }
    let announced =
        returning("[('Content-Length', '77')]", "[]").variable("REQUEST_METHOD", "HEAD");
    announced.both(|response| assert_eq!(response.header("Content-Length"), Some("77")));
    assert_eq!(announced.run().log, "");
}

#[test]
fn w57_a_response_to_head_has_no_body_when_it_is_an_error() {
    let response = returning("[]", "broken()").variable("REQUEST_METHOD", "HEAD").run();
    assert_eq!(
        (response.status.as_str(), response.body.as_slice()),
        ("500 Internal Server Error", &b""[..])
    );
}

#[test]
fn w58_a_status_without_a_body_gets_none() {
    for status in ["204 No Content", "205 Reset Content", "304 Not Modified"] {
        let code = format!(
            "
            def application(environ, start_response):
                start_response('{status}', [('X-Kept', '1')])
                return [b'unwanted']
            "
        );
        let response = Probe::new(&code).run();
        assert_eq!((response.status.as_str(), response.body.as_slice()), (status, &b""[..]));
        assert_eq!(response.header("X-Kept"), Some("1"));
        assert_eq!(response.header("Content-Length"), status.starts_with("205").then_some("0"));
        assert_eq!(response.codes(), ["W0507"], "{status}");
    }
}

#[test]
fn w58_a_length_is_passed_on_with_304_and_not_with_204() {
    for (status, length, passed) in [
        ("204 No Content", "0", None),
        ("204 No Content", "7", None),
        ("205 Reset Content", "7", Some("0")),
        ("304 Not Modified", "7", Some("7")),
    ] {
        for (method, iterable) in [("GET", "[]"), ("HEAD", "[]"), ("GET", "(b'' for _ in '12')")] {
            let code = format!(
                "
                def application(environ, start_response):
                    start_response('{status}', [('content-length', '{length}'), ('X-Kept', '1')])
                    return {iterable}
                "
            );
            let response = Probe::new(&code).variable("REQUEST_METHOD", method).run();
            assert_eq!(
                (response.header("Content-Length"), response.header("X-Kept")),
                (passed, Some("1")),
                "{status} {method}"
            );
            assert_eq!(
                (response.body.as_slice(), response.log.as_str()),
                (&b""[..], ""),
                "{status} {method}"
            );
        }
    }
    let twice = "def application(e, start_response):\n    start_response('204 No', \
        [('Content-Length', '0')] * 2)\n    return []\n";
    assert_error_page(&Probe::new(twice).run(), "W0503");
}

#[test]
fn w58_a_status_that_is_not_final_is_refused() {
    for status in ["100 Continue", "103 Early Hints", "199 Odd"] {
        let code = format!(
            "def application(environ, start_response):\n    start_response('{status}', [])\n    \
                return []\n"
        );
        assert_error_page(&Probe::new(&code).run(), "W0503");
    }
}

#[test]
fn a_hundred_blocks_and_a_large_one_arrive_whole() {
    returning("[]", "[b'%d,' % n for n in range(100)]")
        .both(|response| assert!(response.text().ends_with(",98,99,")));
    returning("[]", "[b'x' * 5000000, b'end']")
        .both(|response| assert_eq!(response.body.len(), 5_000_003));
}
