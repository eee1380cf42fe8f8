//! *environ Variables*, *Unicode Issues*: W01, W02, W10–W20, W27, W28, W52, W53, W56.

use crate::support::probe::{Implementation, Probe};

/// An application that answers with what the expression `expression` is worth.
fn answering(expression: &str) -> Probe {
    Probe::new(&format!(
        "
        import json
        def application(environ, start_response, *more, **named):
            start_response('200 OK', [('Content-Type', 'text/plain; charset=utf-8')])
            return [repr({expression}).encode()]
        "
    ))
}

#[test]
fn w01_the_application_gets_two_positional_arguments() {
    answering("(more, named)").both(|response| assert_eq!(response.text(), "((), {})"));
}

#[test]
fn w02_environ_is_a_builtin_dict_that_may_be_changed() {
    answering("(type(environ), environ.pop('HTTP_HOST'), environ.update(x=1), environ['x'])")
        .both(|response| assert_eq!(response.text(), "(<class 'dict'>, 'example.org', None, 1)"));
}

#[test]
fn w10_the_method_is_present_as_it_was_sent() {
    answering("environ['REQUEST_METHOD']")
        .variable("REQUEST_METHOD", "pAtch")
        .both(|response| assert_eq!(response.text(), "'pAtch'"));
}

#[test]
fn w11_server_name_and_port_are_filled_even_if_the_web_server_omits_them() {
    // The reference passes on what it gets and no more.
    let expression = "(environ['SERVER_NAME'], environ['SERVER_PORT'])";
    answering(expression).both(|response| assert_eq!(response.text(), "('example.org', '80')"));
    let without = answering(expression).without("SERVER_NAME").variable("SERVER_PORT", "");
    assert_eq!(without.run().text(), "('localhost', '80')");
    let over_tls = without.variable("HTTPS", "on");
    assert_eq!(over_tls.run().text(), "('localhost', '443')");
}

#[test]
fn w12_server_protocol_is_present_even_if_the_web_server_omits_it() {
    answering("environ['SERVER_PROTOCOL']")
        .both(|response| assert_eq!(response.text(), "'HTTP/1.1'"));
    assert_eq!(
        answering("environ['SERVER_PROTOCOL']").without("SERVER_PROTOCOL").run().text(),
        "'HTTP/1.0'"
    );
}

#[test]
fn w13_path_query_and_content_variables_are_present_or_empty() {
    let expression = "[environ.get(n) for n in ('SCRIPT_NAME', 'PATH_INFO', 'QUERY_STRING', \
        'CONTENT_TYPE', 'CONTENT_LENGTH')]";
    answering(expression).variable("PATH_INFO", "/a").variable("QUERY_STRING", "b=c").both(
        |response| assert_eq!(response.text(), "['/cgi-bin/app.wsgi', '/a', 'b=c', None, None]"),
    );
    let bare = answering(expression)
        .without("PATH_INFO")
        .without("QUERY_STRING")
        .without("SCRIPT_NAME")
        .run();
    // SCRIPT_NAME or PATH_INFO must be present. The root has PATH_INFO.
    assert_eq!(bare.text(), "['', '/', '', None, None]");
    answering(expression).post("x").variable("CONTENT_TYPE", "text/plain").both(|response| {
        assert!(response.text().ends_with("'text/plain', '1']"), "{}", response.text())
    });
}

#[test]
fn w14_a_header_is_present_exactly_when_it_was_sent() {
    let expression = "sorted(name for name in environ if name.startswith('HTTP_'))";
    answering(expression)
        .variable("HTTP_X_ONE", "")
        .both(|response| assert_eq!(response.text(), "['HTTP_HOST', 'HTTP_X_ONE']"));
    // These two headers have variables of their own (RFC 3875 4.1.18). The reference passes every
    // variable on.
    let repeated = answering(expression)
        .variable("HTTP_CONTENT_TYPE", "a/b")
        .variable("HTTP_CONTENT_LENGTH", "0");
    assert_eq!(repeated.run().text(), "['HTTP_HOST']");
}

#[test]
fn w15_every_variable_is_a_str() {
    answering(
        "{type(value) for name, value in environ.items() if not name.startswith(('wsgi', \
         'wsgate'))}",
    )
    .both(|response| assert_eq!(response.text(), "{<class 'str'>}"));
    answering("[name for name, value in environ.items() if value is None]")
        .both(|response| assert_eq!(response.text(), "[]"));
}

#[test]
fn w16_bytes_arrive_as_latin_1() {
    answering("(environ['PATH_INFO'], environ['QUERY_STRING'], environ['HTTP_X'])")
        .variable("PATH_INFO", b"/caf\xc3\xa9")
        .variable("QUERY_STRING", b"\xff\x80")
        .variable("HTTP_X", "\u{20ac}")
        .both(|response| assert_eq!(response.text(), r"('/cafÃ©', 'ÿ\x80', 'â\x82¬')"));
}

#[test]
fn w16_a_name_of_strange_bytes_arrives_as_latin_1() {
    let response = answering("[name for name in environ if name.startswith('ODD')]")
        .variable("ODD\u{e9}", "x")
        .run();
    assert_eq!(response.text(), "['ODDÃ©']");
}

#[test]
fn w17_further_variables_of_the_web_server_are_passed_on() {
    answering("[environ[n] for n in ('REMOTE_ADDR', 'SSL_PROTOCOL', 'SERVER_SOFTWARE')]")
        .variable("SSL_PROTOCOL", "TLSv1.3")
        .both(|response| assert_eq!(response.text(), "['192.0.2.1', 'TLSv1.3', 'test']"));
}

#[test]
fn w18_the_variables_that_are_provided_are_documented() {
    let page =
        std::fs::read_to_string(crate::support::web_servers::source("docs/environ.md")).unwrap();
    let response =
        answering("sorted(n for n in environ if n.startswith(('wsgi.', 'wsgate.')))").run();
    let names: Vec<String> =
        response.text().split('\'').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "{name} is not in docs/environ.md");
    }
}

#[test]
fn w19_wsgi_version_is_one_zero() {
    answering("(type(environ['wsgi.version']), environ['wsgi.version'])")
        .both(|response| assert_eq!(response.text(), "(<class 'tuple'>, (1, 0))"));
}

#[test]
fn w20_the_scheme_is_that_of_the_web_server_and_of_no_header() {
    for (https, scheme) in
        [("on", "https"), ("1", "https"), ("yes", "https"), ("off", "http"), ("", "http")]
    {
        answering("environ['wsgi.url_scheme']")
            .variable("HTTPS", https)
            .both(|response| assert_eq!(response.text(), format!("'{scheme}'"), "HTTPS={https}"));
    }
    let forwarded =
        answering("environ['wsgi.url_scheme']").variable("HTTP_X_FORWARDED_PROTO", "https");
    forwarded.both(|response| assert_eq!(response.text(), "'http'"));
    // Apache says it so without mod_ssl's own variables; the reference does not know that one.
    let by_request_scheme =
        answering("environ['wsgi.url_scheme']").variable("REQUEST_SCHEME", "https");
    assert_eq!(by_request_scheme.run().text(), "'https'");
    assert_eq!(
        answering("environ['wsgi.url_scheme']").variable("HTTPS", "ON").run().text(),
        "'https'"
    );
}

#[test]
fn w27_a_cold_run_is_one_thread_among_processes_and_runs_once() {
    answering("[environ['wsgi.' + n] for n in ('multithread', 'multiprocess', 'run_once')]")
        .both(|response| assert_eq!(response.text(), "[False, True, True]"));
    let threads = answering("len(__import__('os').listdir('/proc/self/task'))").run();
    assert_eq!(threads.text(), "1");
}

#[test]
fn w28_our_own_keys_are_lower_case_and_carry_our_name() {
    // The reference has none of its own.
    let response =
        answering("[n for n in environ if n[0].islower() and not n.startswith('wsgi.')]").run();
    assert_eq!(response.text(), "['wsgate.version', 'wsgate.request_id', 'wsgate.extend_timeout']");
}

#[test]
fn w51_a_cold_run_starts_no_thread_however_large_its_body_is() {
    let response = answering(
        "(len(environ['wsgi.input'].read()), len(__import__('os').listdir('/proc/self/task')))",
    )
    .post(vec![b'x'; 300_000])
    .run();
    assert_eq!(response.text(), "(300000, 1)");
}

#[test]
fn w52_middleware_may_replace_every_key_that_is_ours() {
    let code = "
        def inner(environ, start_response):
            write = start_response('200 OK', [('Content-Type', 'text/plain')])
            return environ['wsgi.file_wrapper'](environ['wsgi.input'])

        def application(environ, start_response):
            def started(status, headers, exc_info=None):
                return start_response('201 Created', headers + [('X-Middle', '1')])
            import io
            environ['wsgi.input'] = io.BytesIO(b'replaced')
            environ['wsgi.file_wrapper'] = lambda file, size=8192: iter(lambda: file.read(4), b'')
            return (block.upper() for block in inner(environ, started))
        ";
    Probe::new(code).both(|response| {
        assert_eq!(
            (response.status.as_str(), response.text().as_str()),
            ("201 Created", "REPLACED")
        );
        assert_eq!(response.header("x-middle"), Some("1"));
    });
}

#[test]
fn w53_a_deployer_puts_variables_into_environ_and_the_process() {
    let response = answering("(environ['SITE'], __import__('os').environ['SITE'])")
        .options(&["--env", "SITE=a=b"])
        .run();
    assert_eq!(response.text(), "('a=b', 'a=b')");
}

#[test]
fn w56_the_input_is_marked_as_terminated() {
    let response = answering("environ['wsgi.input_terminated']").run_on(Implementation::Wsgate);
    assert_eq!(response.text(), "True");
}

#[test]
fn a_request_is_named_by_the_web_server_or_by_a_new_id() {
    let named =
        answering("environ['wsgate.request_id']").variable("UNIQUE_ID", "aRcX-wB8AAEAAGT@").run();
    assert_eq!(named.text(), "'aRcX-wB8AAEAAGT@'");
    let ids: Vec<String> =
        (0..2).map(|_| answering("environ['wsgate.request_id']").run().text()).collect();
    assert_ne!(ids[0], ids[1]);
    let forged =
        answering("environ['wsgate.request_id']").variable("UNIQUE_ID", "x\nwsgate: error").run();
    assert_eq!(forged.text().len(), 18, "{}", forged.text());
}
