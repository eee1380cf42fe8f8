//! Header fields of a request as variables: RFC 3875 4.1.18, and what must not be there.

use crate::{
    cgi::{environ, latin_1, seen},
    support::probe::Probe,
};

#[test]
fn c18_a_field_is_a_variable_and_fields_that_the_web_server_has_merged_stay_as_they_are() {
    let probe = environ()
        .variable("HTTP_ACCEPT_LANGUAGE", "de, en;q=0.5")
        .variable("HTTP_COOKIE", "a=1; b=\"2, 3\"; a=4")
        .variable("HTTP_X_FORWARDED_FOR", "192.0.2.1, 2001:db8::1")
        .variable("HTTP_X_EMPTY", "")
        .variable("HTTP_X_BYTES", b"caf\xc3\xa9 \xff\t");
    probe.both(|response| {
        let seen = seen(response);
        assert_eq!(seen["HTTP_ACCEPT_LANGUAGE"], "de, en;q=0.5");
        assert_eq!(seen["HTTP_COOKIE"], "a=1; b=\"2, 3\"; a=4");
        assert_eq!(seen["HTTP_X_FORWARDED_FOR"], "192.0.2.1, 2001:db8::1");
        assert_eq!(seen["HTTP_X_EMPTY"], "");
        assert_eq!(seen["HTTP_X_BYTES"], latin_1(b"caf\xc3\xa9 \xff\t"));
        assert!(seen["HTTP_REFERER"].is_null());
    });
}

#[test]
fn c18_no_header_repeats_the_length_and_type_of_the_body() {
    // Two names for one thing may differ, and then two layers of an application disagree on where
    // the body ends.
    let probe = environ()
        .post("12345")
        .variable("HTTP_CONTENT_LENGTH", "99")
        .variable("HTTP_CONTENT_TYPE", "evil/type");
    let seen = seen(&probe.run());
    assert!(seen["HTTP_CONTENT_LENGTH"].is_null() && seen["HTTP_CONTENT_TYPE"].is_null(), "{seen}");
    assert_eq!(seen["CONTENT_LENGTH"], "5");
}

#[test]
fn c19_credentials_are_found_in_each_spelling_that_deployers_use() {
    // CGIHandler knows the first alone.
    for name in [
        "HTTP_AUTHORIZATION",
        "REDIRECT_HTTP_AUTHORIZATION",
        "REDIRECT_REDIRECT_HTTP_AUTHORIZATION",
        "Authorization",
        "AUTHORIZATION",
        "REDIRECT_AUTHORIZATION",
    ] {
        let seen = seen(&environ().variable(name, "Basic YWRhOmxvdmVsYWNl").run());
        assert_eq!(seen["HTTP_AUTHORIZATION"], "Basic YWRhOmxvdmVsYWNl", "{name}");
    }
}

#[test]
fn c19_credentials_of_the_web_server_take_precedence_and_none_are_invented() {
    let both = environ()
        .variable("REDIRECT_HTTP_AUTHORIZATION", "Basic old")
        .variable("HTTP_AUTHORIZATION", "Basic new");
    assert_eq!(seen(&both.run())["HTTP_AUTHORIZATION"], "Basic new");
    // A rewrite rule for a request without credentials leaves an empty variable.
    let empty = environ()
        .variable("HTTP_AUTHORIZATION", "")
        .variable("REDIRECT_HTTP_AUTHORIZATION", "Basic old");
    assert_eq!(seen(&empty.run())["HTTP_AUTHORIZATION"], "Basic old");
    for probe in [environ(), environ().variable("REDIRECT_HTTP_AUTHORIZATION", "")] {
        let seen = seen(&probe.run());
        assert!(seen["HTTP_AUTHORIZATION"].is_null(), "{seen}");
    }
    // A header that only looks like one of the spellings: `X-Authorization`,
    // `Redirect-Http-Authorization`.
    let probe = environ()
        .variable("HTTP_X_AUTHORIZATION", "Basic x")
        .variable("HTTP_REDIRECT_HTTP_AUTHORIZATION", "Basic x");
    assert!(seen(&probe.run())["HTTP_AUTHORIZATION"].is_null());
}

#[test]
fn c41_a_proxy_header_reaches_neither_environ_nor_os_environ_nor_child_processes() {
    let app = "
        import os, subprocess, sys, urllib.request
        at_import = os.environ.get('HTTP_PROXY')
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            child = subprocess.run([sys.executable, '-c', 'import os; \
            print(os.environ.get(\"HTTP_PROXY\"))'],
                                   stdout=subprocess.PIPE).stdout.decode().strip()
            found = [environ.get('HTTP_PROXY'), os.environ.get('HTTP_PROXY'), at_import, child,
                     urllib.request.getproxies().get('http')]
            # urllib's own guard looks for this variable.
            return [repr(found + ['REQUEST_METHOD' in os.environ]).encode()]
        ";
    // CGIHandler passes it on to environ and leaves it in the process.
    let response = Probe::new(app).variable("HTTP_PROXY", "http://evil.example:3128").run();
    assert_eq!(response.text(), "[None, None, None, 'None', None, True]");
}

#[test]
fn c41_a_proxy_that_the_deployer_has_set_stays() {
    let app = "
        import os
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [os.environ.get('http_proxy', 'none').encode()]
        ";
    Probe::new(app)
        .variable("http_proxy", "http://proxy:3128")
        .both(|response| assert_eq!(response.text(), "http://proxy:3128"));
}

#[test]
fn c39_a_variable_of_a_hundred_kilobytes_arrives_whole() {
    let app = "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [str(len(environ['HTTP_COOKIE'])).encode()]
        ";
    Probe::new(app)
        .variable("HTTP_COOKIE", "c".repeat(100 * 1024))
        .both(|response| assert_eq!(response.text(), "102400"));
}
