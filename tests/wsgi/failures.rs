//! Applications that fail: wrong bodies, exceptions, error pages.

use crate::{
    support::probe::Probe,
    wsgi::body::{assert_error_page, returning},
};

#[test]
fn w44_a_body_block_that_is_no_bytes_is_an_error() {
    for block in ["'text'", "1", "None", "bytearray(b'x')", "memoryview(b'x')", "['x']"] {
        let first = returning("[]", &format!("[{block}]")).run();
        assert_error_page(&first, "W0503");
        assert!(first.log.contains(".encode(\"utf-8\")"), "{}", first.log);
        let later = returning("[]", &format!("[b'sent ', {block}, b'never']")).run();
        assert_eq!((later.status.as_str(), later.text().as_str()), ("200 OK", "sent "), "{block}");
        assert_eq!(later.codes(), ["W0503"]);
    }
    // The reference takes no subclass, which the PEP does not ask for.
    let subclass = returning("[]", "[type('B', (bytes,), {})(b'mine')]").run();
    assert_eq!(subclass.text(), "mine");
}

#[test]
fn w44_writing_text_raises_in_the_application() {
    let code = "
        def application(environ, start_response):
            write = start_response('200 OK', [('Content-Type', 'text/plain')])
            try:
                write('text')
            except TypeError as error:
                return [str(error).encode()]
        ";
    assert_eq!(Probe::new(code).run().text(), "write() takes bytes, not `str`");
}

#[test]
fn common_wrong_return_values_are_refused_with_a_hint() {
    for (returned, fix) in [
        ("'<h1>Hello</h1>'", "return [text.encode(\"utf-8\")]"),
        ("b'<h1>Hello</h1>'", "return [body]"),
        ("bytearray(b'ab')", "return [bytes(body)]"),
        ("memoryview(b'ab')", "return [bytes(body)]"),
        ("None", "look for a missing `return`"),
        ("42", "object is not iterable"),
    ] {
        let response = returning("[]", returned).run();
        assert_eq!(response.status, "500 Internal Server Error", "{returned}");
        assert_eq!(response.codes().len(), 1, "{returned}: {}", response.log);
        assert!(response.log.contains(fix), "{returned}: {}", response.log);
    }
}

#[test]
fn an_application_that_never_calls_start_response_is_reported() {
    for body in ["return []", "return [b'']", "yield b'x'", "return [b'x']"] {
        let code = format!("def application(environ, start_response):\n    {body}\n");
        let response = Probe::new(&code).run();
        assert_error_page(&response, "W0503");
        assert!(response.log.contains("start_response"), "{}", response.log);
    }
}

#[test]
fn w46_every_exception_is_logged_with_its_traceback() {
    let response = returning("[]", "broken()").run();
    assert_error_page(&response, "W0501");
    assert!(response.log.contains("app.wsgi\", line "), "{}", response.log);
    assert!(response.log.contains("RuntimeError: broken off"), "{}", response.log);
    for raised in [
        "SystemExit(3)",
        "KeyboardInterrupt()",
        "GeneratorExit()",
        "BaseException('base')",
        "type('E', (Exception,), {'__str__': lambda s: 1/0})()",
    ] {
        let code = format!("def application(environ, start_response):\n    raise {raised}\n");
        assert_error_page(&Probe::new(&code).run(), "W0501");
    }
}

#[test]
fn w47_an_error_before_the_response_headers_becomes_an_error_page() {
    assert_error_page(&returning("[('X-Mine', '1')]", "broken(b'')").run(), "W0501");
    assert_eq!(returning("[('X-Mine', '1')]", "broken()").run().header("X-Mine"), None);
}

#[test]
fn w47_an_error_after_the_response_headers_cuts_the_response_and_adds_nothing() {
    let response = returning("[]", "broken(b'sent')").run();
    assert_eq!((response.status.as_str(), response.text().as_str()), ("200 OK", "sent"));
    assert_eq!(response.codes(), ["W0502"]);
    assert_eq!(response.exit.code(), Some(1));
}

#[test]
fn w47_a_traceback_is_shown_only_with_debug() {
    let response = returning("[]", "broken()").options(&["--debug"]).run();
    assert!(response.text().contains("RuntimeError: broken off"), "{}", response.text());
    assert!(!returning("[]", "broken()").run().text().contains("Traceback"));
}

#[test]
fn every_mistake_in_the_arguments_of_start_response_has_one_code() {
    for wrong in [
        "200, []",
        "'200 OK', ()",
        "'200 OK', [('A', 1)]",
        "'200 OK', [['A', 'b']]",
        "'200 OK', [('A', 'b\\n')]",
        "'200 OK', [], True",
        "start_response('200 OK', []), []",
    ] {
        let code = format!("def application(e, start_response):\n    start_response({wrong})\n");
        let response = Probe::new(&code).run();
        assert_eq!(response.codes(), ["W0503"], "{wrong}: {}", response.log);
    }
}
