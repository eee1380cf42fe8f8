//! *The start_response() Callable*, *Other HTTP Features*, *Unicode Issues*: W03, W29–W39, W45.

use crate::support::probe::{Implementation, Probe};

/// An application that calls `start_response` with these arguments and says what came of it.
fn starting(arguments: &str) -> Probe {
    Probe::new(&format!(
        "
        def application(environ, start_response):
            try:
                start_response({arguments})
            except Exception as error:
                first = repr(error)
            else:
                first = 'accepted'
            import sys
            try:
                raise ValueError()
            except ValueError:
                start_response('200 OK', [('Content-Type', 'text/plain')], sys.exc_info())
            return [first.encode('utf-8', 'backslashreplace')]
        "
    ))
}

fn assert_refused(arguments: &str, args: &str) {
    let response = starting(arguments).run();
    assert!(
        response.text().contains(args)
            && response.text().contains("Error") | response.text().contains("InvalidResponse"),
        "{arguments}: {}",
        response.text()
    );
}

fn assert_accepted(arguments: &str) {
    starting(arguments).both(|response| assert_eq!(response.text(), "accepted", "{arguments}"));
}

#[test]
fn w03_start_response_returns_a_write_that_works() {
    let code = "
        def application(environ, start_response):
            write = start_response('200 OK', [('Content-Type', 'text/plain')])
            write(b'one ')
            write(b'')
            write(b'two')
            return []
        ";
    Probe::new(code).both(|response| assert_eq!(response.text(), "one two"));
}

#[test]
fn the_last_argument_of_start_response_may_be_named() {
    let code = "
        import sys
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            try:
                raise ValueError()
            except ValueError:
                start_response('503 Busy', [('Content-Type', 'text/plain')], \
                exc_info=sys.exc_info())
            return [b'named']
        ";
    Probe::new(code)
        .both(|response| assert_eq!((&*response.status, &*response.text()), ("503 Busy", "named")));
}

#[test]
fn w29_nothing_leaves_before_the_first_block_that_is_not_empty() {
    let code = "
        import sys
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            yield b''
            try:
                raise ValueError()
            except ValueError:
                start_response('404 Not Found', [('Content-Type', 'text/html')], sys.exc_info())
            yield b'late'
        ";
    Probe::new(code).run_on(Implementation::Wsgate);
    let response = Probe::new(code).run();
    assert_eq!((response.status.as_str(), response.text().as_str()), ("404 Not Found", "late"));
    assert_eq!(response.header("Content-Type"), Some("text/html"));
}

#[test]
fn w29_the_first_write_sends_the_headers_even_if_it_is_empty() {
    let code = "
        import sys
        def application(environ, start_response):
            write = start_response('200 OK', [('Content-Type', 'text/plain')])
            write(b'')
            try:
                raise ValueError('kept')
            except ValueError:
                try:
                    start_response('404 Not Found', [], sys.exc_info())
                except ValueError as error:
                    return [str(error).encode()]
        ";
    Probe::new(code).both(|response| {
        assert_eq!((response.status.as_str(), response.text().as_str()), ("200 OK", "kept"))
    });
}

#[test]
fn w29_an_empty_body_still_sends_the_headers() {
    for body in ["[]", "iter(())", "[b'', b'']", "()"] {
        let code = format!(
            "
            def application(environ, start_response):
                start_response('202 Accepted', [('X-Seen', 'yes')])
                return {body}
            "
        );
        Probe::new(&code).both(|response| {
            assert_eq!(
                (response.status.as_str(), response.body.as_slice()),
                ("202 Accepted", &b""[..]),
                "{body}"
            );
            assert_eq!(response.header("X-Seen"), Some("yes"), "{body}");
        });
    }
}

#[test]
fn w30_exc_info_replaces_status_and_headers_before_they_are_sent() {
    let code = "
        import sys
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain'), ('X-First', '1')])
            try:
                raise ValueError()
            except ValueError:
                start_response('500 Oops', [('Content-Type', 'text/html')], sys.exc_info())
            return [b'sorry']
        ";
    Probe::new(code).both(|response| {
        assert_eq!((response.status.as_str(), response.text().as_str()), ("500 Oops", "sorry"));
        assert_eq!(response.header("X-First"), None);
    });
}

#[test]
fn w31_exc_info_after_the_headers_raises_the_original() {
    let code = "
        import sys
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            yield b'begun '
            try:
                raise LookupError('the original')
            except LookupError as original:
                try:
                    start_response('500 Oops', [], sys.exc_info())
                except LookupError as raised:
                    frames = 0
                    step = raised.__traceback__
                    while step:
                        frames, step = frames + 1, step.tb_next
                    yield ('%s %s' % (raised is original, frames > 0)).encode()
        ";
    Probe::new(code).both(|response| {
        assert_eq!(
            (response.status.as_str(), response.text().as_str()),
            ("200 OK", "begun True True")
        )
    });
}

#[test]
fn w31_exc_info_that_is_no_triple_is_a_type_error() {
    for wrong in ["True", "(1, 2)", "(None, None, None)", "()", "'text'"] {
        assert_refused(&format!("'200 OK', [], {wrong}"), "TypeError");
    }
    assert_accepted("'200 OK', [], None");
}

#[test]
fn w32_a_second_call_without_exc_info_is_an_error() {
    let code = "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            try:
                start_response('201 Created', [])
            except Exception as error:
                return [type(error).__name__.encode()]
        ";
    assert_eq!(Probe::new(code).run().text(), "InvalidResponse");
    // The reference asserts, which vanishes under -O.
    assert_eq!(Probe::new(code).run_on(Implementation::Reference).text(), "AssertionError");
}

#[test]
fn w32_it_is_an_error_even_if_the_first_call_raised() {
    let code = "
        def application(environ, start_response):
            try:
                start_response('no status', [])
            except Exception:
                pass
            start_response('200 OK', [])
            return [b'never']
        ";
    let response = Probe::new(code).run();
    assert_eq!(response.status, "500 Internal Server Error");
    assert!(response.log.contains("second time without exc_info"), "{}", response.log);
}

#[test]
fn w33_no_reference_to_an_exception_remains() {
    let code = "
        import gc, sys, weakref
        class Kept(Exception):
            pass
        def application(environ, start_response):
            try:
                raise Kept()
            except Kept as error:
                seen = weakref.ref(error)
                start_response('200 OK', [('Content-Type', 'text/plain')], sys.exc_info())
            gc.collect()
            return [str(seen() is None).encode()]
        ";
    Probe::new(code).both(|response| assert_eq!(response.text(), "True"));
}

#[test]
fn w34_the_application_sees_the_error_where_it_made_it() {
    assert_refused("'200', []", "InvalidResponse");
    assert_refused("'200 OK', [('A', 'b\\r\\nSet-Cookie: c')]", "InvalidResponse");
}

#[test]
fn w35_a_status_is_three_digits_a_space_and_a_reason() {
    for wrong in [
        "200",
        "2x0 OK",
        "OK",
        "2000 OK",
        "200OK",
        "20 OK",
        " 200 OK",
        "200\\tOK",
        "",
        "099 Low",
        "200 O\\r\\nK",
        "200 O\\x00K",
        "200 O\\x7fK",
    ] {
        assert_refused(&format!("'{wrong}', []"), "three digits, a space and a reason");
    }
    for right in ["200 OK", "299 Whatever it means", "999 Message here", "200 Caf\u{e9}"] {
        assert_accepted(&format!("'{right}', []"));
    }
}

#[test]
fn w36_headers_are_a_list_of_pairs_of_str() {
    for (wrong, args) in [
        ("(('A', 'b'),)", "must be a list"),
        ("iter([])", "must be a list"),
        ("None", "must be a list"),
        ("{'A': 'b'}", "must be a list"),
        ("[['A', 'b']]", "tuple of two str"),
        ("[('A',)]", "tuple of two str"),
        ("[('A', 'b', 'c')]", "tuple of two str"),
        ("[('A', 1)]", "tuple of two str"),
        ("[(b'A', 'b')]", "tuple of two str"),
        ("[('A', None)]", "tuple of two str"),
        ("[('', 'b')]", "not an HTTP token"),
        ("[('A B', 'b')]", "not an HTTP token"),
        ("[('A:', 'b')]", "not an HTTP token"),
        ("[('A\\n', 'b')]", "not an HTTP token"),
        ("[('\u{c4}', 'b')]", "not an HTTP token"),
        ("[('A', 'b\\rc')]", "control character"),
        ("[('A', 'b\\nc')]", "control character"),
        ("[('A', 'b\\x00c')]", "control character"),
        ("[('A', 'b\\x1fc')]", "control character"),
        ("[('A', 'b\\x7fc')]", "control character"),
        ("[('Status', '200 OK')]", "Status"),
    ] {
        assert_refused(&format!("'200 OK', {wrong}"), args);
    }
    assert_refused("200, []", "status must be str");
    assert_refused("b'200 OK', []", "status must be str");
    // A tabulator is allowed in a value, and a value may be empty.
    assert_accepted("'200 OK', [('A', 'b\\tc'), ('B', '')]");
}

#[test]
fn w37_hop_by_hop_headers_are_an_error() {
    for name in [
        "Connection",
        "keep-alive",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "TE",
        "Trailers",
        "TRANSFER-ENCODING",
        "Upgrade",
    ] {
        assert_refused(&format!("'200 OK', [('{name}', 'x')]"), "hop-by-hop");
        let reference =
            starting(&format!("'200 OK', [('{name}', 'x')]")).run_on(Implementation::Reference);
        assert!(reference.text().contains("AssertionError"), "{}", reference.text());
    }
}

#[test]
fn w38_a_body_without_a_type_is_passed_on_without_one_and_the_log_says_so() {
    let code = "
        def application(environ, start_response):
            start_response('200 OK', [])
            return [b'what am I']
        ";
    let response = Probe::new(code).run();
    assert_eq!((response.header("Content-Type"), response.text().as_str()), (None, "what am I"));
    assert_eq!(response.codes(), ["W0506"]);
    Probe::new(code).both(|response| assert_eq!(response.header("Content-Type"), None));
}

#[test]
fn w39_header_names_are_compared_without_case() {
    let code = "
        def application(environ, start_response):
            start_response('200 OK', [('CONTENT-type', 'text/plain'), ('content-LENGTH', '3')])
            return [b'abc', b'more']
        ";
    let response = Probe::new(code).run();
    assert_eq!(response.headers.len(), 2, "{response:?}");
    assert_eq!(response.text(), "abc");
}

#[test]
fn w45_status_and_headers_must_be_latin_1() {
    assert_refused("'200 \\u20ac', []", "outside latin-1");
    assert_refused("'200 OK', [('A', '\\u20ac')]", "outside latin-1");
    assert_refused("'200 OK', [('A', '\\ud800')]", "outside latin-1");
    let code = "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain'), ('X', '\\xe9')])
            return []
        ";
    Probe::new(code).both(|response| assert_eq!(response.header("X"), Some("\u{e9}")));
}

#[test]
fn every_header_leaves_as_it_was_given_and_in_its_order() {
    let code = "
        def application(environ, start_response):
            headers = [('Content-Type', 'text/plain'), ('Set-Cookie', 'a=1'), ('Set-Cookie', 'b=2'),
                       ('WWW-Authenticate', 'Basic realm=\"x\"'), ('WWW-Authenticate', 'Digest')]
            headers += [('X-%d' % n, str(n)) for n in range(25)]
            start_response('200 OK', headers)
            return [b'x']
        ";
    Probe::new(code).both(|response| {
        let names: Vec<&str> =
            response.headers.iter().take(5).map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            ["Content-Type", "Set-Cookie", "Set-Cookie", "WWW-Authenticate", "WWW-Authenticate"]
        );
        assert_eq!(response.header("X-24"), Some("24"));
    });
}

#[test]
fn headers_that_change_after_the_call_are_not_seen() {
    let code = "
        def application(environ, start_response):
            headers = [('Content-Type', 'text/plain')]
            start_response('200 OK', headers)
            headers.append(('X-Late', '1'))
            return [b'x']
        ";
    let response = Probe::new(code).run();
    assert_eq!(response.header("X-Late"), None);
}
