//! The response: RFC 3875 section 6.

use crate::support::{
    assertions::{complete_response, only_log_message, parse_response},
    probe::Probe,
};

/// An application that answers with this status, these headers and this body, each as Python has
/// it.
fn answering(status: &str, headers: &str, body: &str) -> Probe {
    Probe::new(&format!(
        "
        def application(environ, start_response):
            start_response({status}, {headers})
            return {body}
        "
    ))
}

const TEXT: &str = "[('Content-Type', 'text/plain')]";

#[test]
fn c24_a_response_to_head_is_its_headers_alone() {
    // CGIHandler leaves it to the front to take the body away.
    let long = "[('Content-Type', 'text/plain'), ('Content-Length', '100000')]";
    for (headers, body) in [
        (TEXT, "[b'body']"),
        (long, "[b'x' * 100000]"),
        (TEXT, "(b'x' for _ in range(3))"),
        (TEXT, "environ['wsgi.file_wrapper'](open(__file__, 'rb'))"),
    ] {
        let response =
            answering("'200 OK'", headers, body).variable("REQUEST_METHOD", "HEAD").run();
        let head = parse_response(&response.raw).unwrap();
        assert_eq!((head.status, head.body.len(), response.log.as_str()), (200, 0, ""), "{body}");
        if headers == long {
            assert_eq!(head.all("Content-Length"), ["100000"]);
        }
    }
}

#[test]
fn c24_an_error_page_for_head_is_its_headers_alone() {
    for app in [
        "raise RuntimeError()",
        "def application(environ, start_response): raise RuntimeError()",
        "import os; os._exit(3)",
    ] {
        let response = Probe::new(app).variable("REQUEST_METHOD", "HEAD").run();
        let head = parse_response(&response.raw).unwrap();
        assert!(head.status >= 500 && head.body.is_empty(), "{head:?}");
        assert_eq!(response.codes().len(), 1, "{}", response.log);
    }
    let response =
        Probe::new("").variable("REQUEST_METHOD", "HEAD").variable("CONTENT_LENGTH", "-1").run();
    let head = parse_response(&response.raw).unwrap();
    assert_eq!((head.status, head.body.len()), (400, 0));
}

#[test]
fn c24_head_in_another_case_is_another_method() {
    let probe = answering("'200 OK'", TEXT, "[b'body']").variable("REQUEST_METHOD", "head");
    probe.both(|response| assert_eq!(response.text(), "body"));
}

#[test]
fn c27_a_response_is_never_empty() {
    for (status, headers) in [
        ("'200 OK'", TEXT),
        ("'200 OK'", "[]"),
        ("'204 No Content'", "[]"),
        ("'304 Not Modified'", "[]"),
    ] {
        for body in ["[]", "iter(())", "[b'', b'']", "()"] {
            let probe = answering(status, headers, body);
            let status = &status[1..status.len() - 1];
            probe.both(|response| {
                assert_eq!((response.status.as_str(), response.exit.code()), (status, Some(0)));
                assert!(
                    response.raw.starts_with(b"Status: ") && response.raw.ends_with(b"\r\n\r\n"),
                    "{response:?}"
                );
            });
        }
    }
}

#[test]
fn c29_a_response_is_fields_a_blank_line_and_the_body() {
    let headers = "[('Content-Type', 'text/plain'), ('X-A', 'b: c'), ('X-Empty', ''), ('x-a', \
        '\\xe9\\t!'), ('Set-Cookie', 'a=1'),
                    ('Set-Cookie', 'b=2')]";
    answering("'200 OK'", headers, "[b'\\r\\n\\r\\nStatus: 404 x\\r\\n\\r\\nbody']").both(
        |response| {
            let head = complete_response(&response.raw);
            assert_eq!(
                head.fields[..6]
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .collect::<Vec<_>>(),
                [
                    ("Content-Type", "text/plain"),
                    ("X-A", "b: c"),
                    ("X-Empty", ""),
                    ("x-a", "\u{e9}\t!"),
                    ("Set-Cookie", "a=1"),
                    ("Set-Cookie", "b=2"),
                ]
            );
            assert_eq!(head.body, b"\r\n\r\nStatus: 404 x\r\n\r\nbody");
        },
    );
}

#[test]
fn c30_a_document_has_the_content_type_of_the_application_and_none_is_invented() {
    for (status, headers) in [("'200 OK'", "[]"), ("'404 Not Found'", "[('X-A', 'b')]")] {
        let answering = answering(status, headers, "[b'<h1>']");
        answering.both(|response| {
            assert_eq!(complete_response(&response.raw).all("Content-Type"), [""; 0])
        });
        let log = answering.run().log;
        assert!(only_log_message(&log, "W0506").contains("Content-Type"), "{log}");
    }
    let typed = answering("'200 OK'", "[('content-type', 'text/odd')]", "[b'<h1>']");
    typed.both(|response| {
        assert_eq!(
            (complete_response(&response.raw).all("Content-Type"), response.log.as_str()),
            (vec!["text/odd"], "")
        )
    });
}

#[test]
fn c30_a_response_without_a_document_needs_no_content_type() {
    for status in ["'204 No Content'", "'304 Not Modified'", "'200 OK'"] {
        answering(status, "[]", "[]").both(|response| {
            assert_eq!((response.header("Content-Type"), response.log.as_str()), (None, ""));
        });
    }
}

#[test]
fn c31_the_status_comes_once_and_first_and_keeps_its_reason() {
    for status in [
        "200 OK",
        "404 Not Found",
        "299 Whatever it is",
        "500 Caf\u{e9}",
        "999 Odd",
        "418 A teapot: short",
    ] {
        answering(&format!("'{status}'"), TEXT, "[b'x']").both(|response| {
            complete_response(&response.raw);
            assert_eq!(response.status, status);
            assert!(response.raw.starts_with(b"Status: "), "{response:?}");
        });
    }
}

#[test]
fn c31_an_invalid_status_is_an_error_page() {
    // CGIHandler checks some of these by `assert`, which python -O leaves out.
    for status in [
        "'200'",
        "'20 OK'",
        "'2000 OK'",
        "'OK'",
        "''",
        "' 200 OK'",
        "'200 OK\\r\\nX: y'",
        "'200 \\x00'",
        "'2e2 OK'",
    ] {
        let response = answering(status, TEXT, "[b'x']").run();
        assert_eq!(complete_response(&response.raw).status, 500, "{status}");
        only_log_message(&response.log, "W0503");
    }
}

#[test]
fn c31_a_status_among_the_headers_is_an_error_page() {
    for name in ["Status", "status", "STATUS"] {
        // CGIHandler passes it on, and the front sees two.
        let response =
            answering("'200 OK'", &format!("[('{name}', '404 Not Found')]"), "[b'x']").run();
        assert_eq!(complete_response(&response.raw).status, 500);
        assert!(only_log_message(&response.log, "W0503").contains("`Status`"), "{}", response.log);
    }
}

#[test]
fn c32_a_redirect_to_a_path_is_the_clients_and_not_an_internal_one() {
    // Only `Location: /path` without a status makes the front fetch it by itself.
    for location in ["/elsewhere?q=1", "elsewhere", "http://example.org/"] {
        let headers = format!("[('Location', '{location}')]");
        for status in [
            "301 Moved Permanently",
            "302 Found",
            "303 See Other",
            "307 Temporary Redirect",
            "201 Created",
        ] {
            answering(&format!("'{status}'"), &headers, "[]").both(|response| {
                assert_eq!(
                    (response.status.as_str(), response.header("Location")),
                    (status, Some(location))
                );
                assert!(response.raw.starts_with(b"Status: "), "{response:?}");
            });
        }
    }
}

#[test]
fn c32_a_location_with_status_200_does_not_become_a_redirect() {
    // CGIHandler sends it, and Apache answers with 302 in place of the application's 200.
    for location in ["/elsewhere", "http://example.org/"] {
        let headers = format!("[('Content-Type', 'text/plain'), ('location', '{location}')]");
        let response = answering("'200 OK'", &headers, "[b'here']").run();
        let head = complete_response(&response.raw);
        assert_eq!(
            (head.status, head.all("Location").len(), head.body),
            (200, 0, b"here".to_vec())
        );
        only_log_message(&response.log, "W0508");
    }
}

#[test]
fn c33_a_redirect_may_have_a_document() {
    let headers = "[('Location', 'http://example.org/'), ('Content-Type', 'text/html')]";
    answering("'302 Found'", headers, "[b'<a>there</a>']").both(|response| {
        let head = complete_response(&response.raw);
        assert_eq!((head.status, head.body), (302, b"<a>there</a>".to_vec()));
    });
}

#[test]
fn c34_a_cgi_field_that_comes_twice_is_an_error_page() {
    for (name, value) in
        [("Content-Type", "text/plain"), ("Location", "/x"), ("Content-Length", "1")]
    {
        let other = name.to_uppercase();
        let headers = format!("[('{name}', '{value}'), ('{other}', '{value}')]");
        // CGIHandler sends both.
        let response = answering("'302 Found'", &headers, "[b'x']").run();
        assert_eq!(complete_response(&response.raw).status, 500, "{name}");
        assert!(only_log_message(&response.log, "W0503").contains("twice"), "{}", response.log);
    }
}

#[test]
fn c35_what_would_be_a_second_field_or_a_folded_one_is_an_error_page() {
    for field in [
        "'X-A', 'b\\r\\nX-Evil: 1'",
        "'X-A', 'b\\nX-Evil: 1'",
        "'X-A', 'b\\r\\n folded'",
        "'X-A', 'b\\rX-Evil: 1'",
        "'X-A', 'b\\x00'",
        "'X-A ', 'b'",
        "'X A', 'b'",
        "' X-A', 'b'",
        "'X-A:', 'b'",
        "'X-A\\r\\nX-Evil', 'b'",
        "'', 'b'",
        "'X-\\xe9', 'b'",
    ] {
        let response = answering(
            "'200 OK'",
            &format!("[('Content-Type', 'text/plain'), ({field})]"),
            "[b'x']",
        )
        .run();
        assert_eq!(complete_response(&response.raw).status, 500, "{field}");
        assert!(!response.raw.windows(6).any(|six| six == b"X-Evil"), "{response:?}");
        only_log_message(&response.log, "W0503");
    }
}

#[test]
fn c36_fields_of_the_connection_are_an_error_page() {
    for name in [
        "Connection",
        "Keep-Alive",
        "Proxy-Authenticate",
        "Proxy-Authorization",
        "TE",
        "Trailers",
        "Transfer-Encoding",
        "Upgrade",
        "transfer-encoding",
    ] {
        let headers = format!("[('Content-Type', 'text/plain'), ('{name}', 'close')]");
        answering("'200 OK'", &headers, "[b'x']").both(|response| {
            assert_eq!(response.status, "500 Internal Server Error");
            assert!(response.header(name).is_none() && !response.log.is_empty(), "{response:?}");
        });
    }
}

#[test]
fn c37_every_byte_of_a_body_arrives() {
    let all: Vec<u8> = (0..=255).collect();
    answering("'200 OK'", TEXT, "[bytes(range(256)), bytes(range(256))]").both(|response| {
        assert_eq!(response.body, [all.clone(), all.clone()].concat());
    });
}

#[test]
fn c39_response_headers_that_no_web_server_accepts_are_an_error_page() {
    // Apache answers a line above 8 KiB with a bare 500, and lighttpd a head above 64 KiB.
    for headers in [
        "[('Content-Type', 'text/plain'), ('X-Long', 'x' * 9000)]",
        "[('Content-Type', 'text/plain'), ('X-Long', 'x' * 10000000)]",
        "[('Content-Type', 'text/plain')] + [('X-%d' % n, 'x' * 1000) for n in range(100)]",
        "[('Content-Type', 'text/plain')] + [('X-%d' % n, '') for n in range(100000)]",
        "[('X' * 9000, 'x')]",
    ] {
        let response = answering("'200 OK'", headers, "[b'x']").run();
        assert_eq!(complete_response(&response.raw).status, 500, "{headers}");
        let message = only_log_message(&response.log, "W0503");
        assert!(message.len() < 1000, "the log repeats it: {message}");
        assert!(response.log.len() < 10_000, "the log repeats it");
    }
}
