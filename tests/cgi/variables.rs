//! The variables of a request: RFC 3875 section 4.1.

use std::process::Command;

use serde_json::Value;

use crate::{
    cgi::{environ, latin_1, seen},
    support::{
        assertions::{complete_response, only_log_message},
        child_process,
        probe::{Implementation, ORDINARY, Probe, python},
    },
};

/// Starts the program `argv[2]` with the arguments that follow and the variables on standard input,
/// each ended by NUL, in their order: `execve` takes what no dictionary can hold.
const EXECVE: &str = "
import ctypes, sys
variables = sys.stdin.buffer.read().split(b'\\0')[:-1]
arguments = [word.encode() for word in sys.argv[1:]]
array = lambda words: (ctypes.c_char_p * (len(words) + 1))(*words, None)
ctypes.CDLL(None).execve(arguments[0], array(arguments), array(variables))
";

/// The environ of an application whose gateway gets `block` and the ordinary variables that `block`
/// lacks.
fn seen_with_block(block: &[&[u8]]) -> Value {
    let probe = environ();
    let mut variables: Vec<Vec<u8>> = block.iter().map(|variable| variable.to_vec()).collect();
    for (name, value) in ORDINARY {
        let beginning = format!("{name}=").into_bytes();
        if !block.iter().any(|variable| variable.starts_with(&beginning)) {
            variables.push([&beginning, value.as_bytes()].concat());
        }
    }
    let given: Vec<u8> =
        variables.iter().flat_map(|variable| [variable, &b"\0"[..]].concat()).collect();
    let gateway = probe.command(Implementation::Wsgate);
    let mut command = Command::new(python());
    command.args(["-c", EXECVE]).arg(gateway.get_program()).args(gateway.get_args());
    let ended = child_process::run(&mut command, given);
    serde_json::from_slice(&complete_response(&ended.stdout).body).unwrap()
}

#[test]
fn c02_of_a_repeated_variable_the_first_counts_everywhere() {
    let block: [&[u8]; 3] =
        [b"QUERY_STRING=first=1", b"QUERY_STRING=second=2", b"QUERY_STRING=third=3"];
    assert_eq!(seen_with_block(&block)["QUERY_STRING"], "first=1");
}

#[test]
fn c02_a_name_in_another_case_replaces_no_variable() {
    let seen = seen_with_block(&[
        b"query_string=evil",
        b"Query_String=evil",
        b"QUERY_STRING=good=1",
        b"path_info=/evil",
    ]);
    assert_eq!((&seen["QUERY_STRING"], &seen["PATH_INFO"]), (&"good=1".into(), &"".into()));
}

#[test]
fn c02_values_keep_their_case() {
    let probe = environ()
        .variable("PATH_INFO", "/MiXed/Case")
        .variable("QUERY_STRING", "Q=Ab")
        .variable("HTTP_X", "aBc");
    probe.both(|response| {
        let seen = seen(response);
        assert_eq!(seen["PATH_INFO"], "/MiXed/Case");
        assert_eq!((&seen["QUERY_STRING"], &seen["HTTP_X"]), (&"Q=Ab".into(), &"aBc".into()));
    });
}

#[test]
fn c02_strings_of_the_environment_that_are_no_variables_are_ignored() {
    let seen =
        seen_with_block(&[b"no variable", b"", b"=", b"=x", b"\xff\xfe=\xfd", b"QUERY_STRING=a=1"]);
    assert_eq!(seen["QUERY_STRING"], "a=1");
    assert_eq!(seen[latin_1(b"\xff\xfe")], latin_1(b"\xfd"));
}

#[test]
fn c03_an_empty_variable_and_a_missing_one_mean_the_same() {
    // CGIHandler takes an empty SERVER_NAME and SERVER_PORT as they are, which PEP 3333 forbids.
    for (name, expected) in [
        ("SERVER_NAME", "localhost"),
        ("SERVER_PORT", "80"),
        ("SERVER_PROTOCOL", "HTTP/1.0"),
        ("QUERY_STRING", ""),
    ] {
        assert_eq!(seen(&environ().variable(name, "").run())[name], expected, "empty {name}");
        assert_eq!(seen(&environ().without(name).run())[name], expected, "missing {name}");
    }
    for name in [
        "PATH_INFO",
        "CONTENT_TYPE",
        "CONTENT_LENGTH",
        "HTTPS",
        "REMOTE_USER",
        "REQUEST_URI",
        "REMOTE_ADDR",
    ] {
        for probe in [environ().variable(name, ""), environ().without(name)] {
            let response = probe.run();
            let value = seen(&response)[name].as_str().unwrap_or_default().to_owned();
            assert_eq!((value.as_str(), response.codes().len()), ("", 0), "{name}: {response:?}");
        }
    }
}

#[test]
fn c03_a_missing_or_empty_method_is_answered_with_400() {
    for probe in [environ().variable("REQUEST_METHOD", ""), environ().without("REQUEST_METHOD")] {
        let response = probe.run();
        assert_eq!(complete_response(&response.raw).status, 400);
        assert!(
            only_log_message(&response.log, "W0401").contains("REQUEST_METHOD"),
            "{}",
            response.log
        );
        // Only a person in a shell forgets the method.
        assert!(response.log.contains("`wsgate call APP`"), "{}", response.log);
    }
}

#[test]
fn c04_the_user_that_the_web_server_names_arrives_unchanged() {
    let probe = environ()
        .variable("AUTH_TYPE", "Digest")
        .variable("REMOTE_USER", "Zo\u{eb} <z@example.org>");
    probe.both(|response| {
        let seen = seen(response);
        assert_eq!(seen["AUTH_TYPE"], "Digest");
        assert_eq!(seen["REMOTE_USER"], latin_1("Zo\u{eb} <z@example.org>".as_bytes()));
    });
    let seen = seen(&environ().run());
    assert!(
        seen["AUTH_TYPE"].is_null() && seen["REMOTE_USER"].is_null(),
        "nobody has authenticated: {seen}"
    );
}

#[test]
fn c05_a_content_length_that_is_no_number_of_digits_is_answered_with_400() {
    let app = "raise SystemExit('the application is not even loaded')";
    // CGIHandler hands each of them to the application.
    for length in [
        "-1",
        "+5",
        " 5",
        "5 ",
        "5\t",
        "5, 5",
        "5,5",
        "1e9",
        "0x5",
        "5.0",
        "5\n",
        "five",
        "\u{665}",
        "--",
        ";",
        "99999999999999999999",
        "18446744073709551616",
    ] {
        let response = Probe::new(app).post("12345").variable("CONTENT_LENGTH", length).run();
        let page = complete_response(&response.raw);
        assert_eq!((page.status, response.exit.code()), (400, Some(0)), "{length:?}: {response:?}");
        assert!(
            only_log_message(&response.log, "W0401").contains("CONTENT_LENGTH"),
            "{}",
            response.log
        );
    }
}

#[test]
fn c05_a_content_length_of_digits_is_the_length() {
    let app = "
        def application(environ, start_response):
            body = environ['wsgi.input'].read(int(environ['CONTENT_LENGTH'] or 0))
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [environ['CONTENT_LENGTH'].encode() + b':' + body]
        ";
    for (length, expected) in [("5", "5:12345"), ("0", "0:"), ("005", "005:12345"), ("3", "3:123")]
    {
        Probe::new(app).post("12345").variable("CONTENT_LENGTH", length).both(|response| {
            assert_eq!((response.status.as_str(), response.text().as_str()), ("200 OK", expected));
        });
    }
}

#[test]
fn c06_a_content_type_arrives_unchanged_and_none_is_invented() {
    let given = "Multipart/Form-Data; boundary=\"a b\"; charset=UTF-8";
    environ()
        .post("x")
        .variable("CONTENT_TYPE", given)
        .both(|response| assert_eq!(seen(response)["CONTENT_TYPE"], given));
    environ().post("x").both(|response| assert!(seen(response)["CONTENT_TYPE"].is_null()));
}

#[test]
fn c05_an_empty_content_length_or_content_type_is_a_missing_one() {
    // CGIHandler passes both on, and applications that convert the length fail.
    let probe = environ()
        .variable("CONTENT_LENGTH", "")
        .variable("CONTENT_TYPE", "")
        .variable("HTTP_LAST", "z");
    let seen = seen(&probe.run());
    assert!(seen.get("CONTENT_LENGTH").is_none() && seen.get("CONTENT_TYPE").is_none(), "{seen}");
    assert_eq!((&seen["HTTP_LAST"], &seen["REQUEST_METHOD"]), (&"z".into(), &"GET".into()));
}

#[test]
fn c02_no_variable_replaces_a_key_of_the_server() {
    let probe = Probe::new(
        "
        import json
        def application(environ, start_response):
            environ['wsgi.errors'].write('written\\n')
            environ['wsgi.input'].read()
            start_response('200 OK', [('Content-Type', 'application/json')])
            names = sorted(name for name in environ if '.' in name)
            return [json.dumps([environ['wsgi.url_scheme'], names, \
            environ['trac.env_path']]).encode()]
        ",
    );
    let names =
        ["errors", "url_scheme", "input", "version", "multithread", "file_wrapper", "made_up"];
    let probe =
        names.iter().fold(probe, |probe, name| probe.variable(&format!("wsgi.{name}"), "evil"));
    let response =
        probe.variable("wsgate.data", "evil").variable("trac.env_path", "/srv/trac").run();
    assert_eq!((response.status.as_str(), response.log.as_str()), ("200 OK", "written\n"));
    let text = response.text();
    assert!(text.starts_with("[\"http\", ") && text.contains("\"/srv/trac\""), "{text}");
    assert!(!text.contains("made_up") && !text.contains("wsgate.data"), "{text}");
}

#[test]
fn c11_a_query_arrives_as_it_was_written_and_is_always_defined() {
    for query in ["a=1&b=2", "q=%26%3D+%C3%A9", "%2e%2e/%00", "a=b=c&&", "?"] {
        environ()
            .variable("QUERY_STRING", query)
            .both(|response| assert_eq!(seen(response)["QUERY_STRING"], query));
    }
    // CGIHandler leaves it out where the front does; RFC 3875 4.1.7 has it always defined.
    assert_eq!(seen(&environ().without("QUERY_STRING").run())["QUERY_STRING"], "");
}

#[test]
fn c12_a_client_has_an_address_of_either_version_and_perhaps_a_name() {
    for address in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"] {
        let probe = environ().variable("REMOTE_ADDR", address);
        probe.both(|response| {
            assert_eq!(
                (&seen(response)["REMOTE_ADDR"], &seen(response)["REMOTE_HOST"]),
                (&address.into(), &Value::Null)
            )
        });
        let probe = probe.variable("REMOTE_HOST", "client.example.org");
        probe.both(|response| assert_eq!(seen(response)["REMOTE_HOST"], "client.example.org"));
    }
}

#[test]
fn c13_a_method_is_any_token_and_keeps_its_case() {
    for method in ["GET", "get", "PROPFIND", "M-SEARCH", "VERSION-CONTROL", "X!#$%&'*+.^_`|~9"] {
        environ()
            .variable("REQUEST_METHOD", method)
            .both(|response| assert_eq!(seen(response)["REQUEST_METHOD"], method));
    }
}

#[test]
fn c13_a_method_that_is_no_token_is_answered_with_400() {
    for method in [&b"GET "[..], b"GE T", b"GET\r\nX: y", b"G\xc9T", b"GET,POST", b"<b>"] {
        let response = environ().variable("REQUEST_METHOD", method).run();
        assert_eq!(complete_response(&response.raw).status, 400, "{response:?}");
        only_log_message(&response.log, "W0401");
    }
}

#[test]
fn c15_a_server_may_be_named_by_an_address() {
    for name in ["[2001:db8::1]", "192.0.2.7", "example.org", "xn--bcher-kva.example"] {
        environ()
            .variable("SERVER_NAME", name)
            .both(|response| assert_eq!(seen(response)["SERVER_NAME"], name));
    }
}

#[test]
fn c16_a_port_is_a_number_of_digits() {
    for port in ["80", "443", "8080"] {
        environ()
            .variable("SERVER_PORT", port)
            .both(|response| assert_eq!(seen(response)["SERVER_PORT"], port));
    }
    for port in ["80x", "-80", "http", "8 0", "80\n"] {
        let response = environ().variable("SERVER_PORT", port).run();
        assert_eq!(complete_response(&response.raw).status, 400, "{port}: {response:?}");
        assert!(
            only_log_message(&response.log, "W0401").contains("SERVER_PORT"),
            "{}",
            response.log
        );
    }
}

#[test]
fn c17_a_document_that_is_included_is_served_as_http_1_0() {
    // CGIHandler passes the word on, and frameworks that look for `HTTP/` stumble over it.
    assert_eq!(
        seen(&environ().variable("SERVER_PROTOCOL", "INCLUDED").run())["SERVER_PROTOCOL"],
        "HTTP/1.0"
    );
    for protocol in ["HTTP/1.0", "HTTP/1.1", "HTTP/2.0"] {
        environ()
            .variable("SERVER_PROTOCOL", protocol)
            .both(|response| assert_eq!(seen(response)["SERVER_PROTOCOL"], protocol));
    }
}
