//! Whatever variables and bytes come: the response is a valid one, and the log has at most one
//! log message.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    time::{SystemTime, UNIX_EPOCH},
};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{RngSeed, TestRunner},
};

use crate::support::{
    assertions::{codes, complete_response, parse_response},
    child_process,
    probe::{Implementation, Probe},
};

/// Looks at everything that it was given.
const CURIOUS: &str = "
    from wsgiref.util import request_uri
    def application(environ, start_response):
        shown = [request_uri(environ)] + ['%s=%s' % item for item in sorted(environ.items(), \
        key=str)]
        write = start_response('200 OK', [('Content-Type', 'text/plain')])
        if environ['QUERY_STRING'][:1] > 'a':
            write('\\n'.join(shown).encode('latin-1', 'replace'))
        try:
            return [environ['wsgi.input'].read()]
        except OSError as error:
            return [repr(error).encode()]
    ";

/// Names that a gateway reacts to.
const NAMES: [&str; 26] = [
    "REQUEST_METHOD",
    "REQUEST_URI",
    "SCRIPT_NAME",
    "SCRIPT_FILENAME",
    "PATH_INFO",
    "PATH_TRANSLATED",
    "QUERY_STRING",
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "REDIRECT_STATUS",
    "REDIRECT_HANDLER",
    "REDIRECT_URL",
    "REMOTE_ADDR",
    "AUTH_TYPE",
    "UNIQUE_ID",
    "HTTPS",
    "HTTP_HOST",
    "HTTP_PROXY",
    "HTTP_TRANSFER_ENCODING",
    "HTTP_AUTHORIZATION",
    "Authorization",
    "HTTP_CONTENT_LENGTH",
    "wsgi.input",
];

/// Values that some layer might stumble over.
const VALUES: [&[u8]; 24] = [
    b"",
    b"GET",
    b"HEAD",
    b"POST",
    b"/",
    b"//",
    b"/a/../b//c",
    b"/cgi-bin/app.wsgi",
    b"/cgi-bin/app.wsgi/%2e%2e/%zz%",
    b"http://example.org",
    b"http://[::1]:99999/a?b",
    b"*",
    b"0",
    b"7",
    b"-1",
    b"18446744073709551615",
    b"99999999999999999999",
    b"on",
    b"200",
    b"chunked",
    b"INCLUDED",
    b"x\r\nStatus: 200 OK\r\n\r\n",
    b"x\nwsgate: error[W9999]: forged\nhint: x\nrequest: x",
    b"\xff\xfe\xc3\x28",
];

fn name() -> impl Strategy<Value = Vec<u8>> {
    let known = proptest::sample::select(&NAMES[..]).prop_map(|name| name.as_bytes().to_vec());
    let header = "HTTP_[A-Z_]{1,12}".prop_map(String::into_bytes);
    let any =
        vec(any::<u8>().prop_filter("no byte of a name", |&byte| byte != 0 && byte != b'='), 1..20);
    prop_oneof![6 => known, 2 => header, 2 => any]
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let hard = proptest::sample::select(&VALUES[..]).prop_map(<[u8]>::to_vec);
    prop_oneof![3 => hard, 2 => vec(1_u8.., 0..200), 1 => "[ \
        -~]{0,40}".prop_map(String::into_bytes)]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![3 => vec(any::<u8>(), 0..300), 1 => vec(any::<u8>(), 60_000..140_000)]
}

#[test]
#[expect(clippy::print_stdout, reason = "shown only if it fails")]
fn c29_for_any_variables_and_bytes_the_response_is_valid_and_the_log_has_one_message_at_most() {
    let mut config = ProptestConfig {
        cases: 100,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Default::default()
    };
    if config.rng_seed == RngSeed::Random {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        config.rng_seed =
            RngSeed::Fixed(u64::from(now.subsec_nanos()) << 32 | now.as_secs() & 0xffff_ffff);
    }
    println!("to repeat this: PROPTEST_RNG_SEED={}", config.rng_seed);
    let probe = Probe::new(CURIOUS);
    let environment = (vec((name(), value()), 0..25), body());
    TestRunner::new(config)
        .run(&environment, |(variables, body)| {
            let mut command = probe.command(Implementation::Wsgate);
            command.env("CONTENT_LENGTH", body.len().to_string()).env("REQUEST_METHOD", "POST");
            for (name, value) in &variables {
                command.env(OsStr::from_bytes(name), OsStr::from_bytes(value));
            }
            let ended = child_process::run(&mut command, body);
            prop_assert!(matches!(ended.code(), Some(0 | 1)), "{ended:?}");
            // A body may be longer than another CONTENT_LENGTH says.
            let codes: Vec<&str> =
                codes(&ended.stderr).into_iter().filter(|code| *code != "W0406").collect();
            prop_assert!(codes.len() <= 1, "{}", ended.stderr);
            let response = parse_response(&ended.stdout).map_err(TestCaseError::fail)?;
            // Names must not bring more than one error page, nor a page without its log message.
            prop_assert_eq!(response.status == 200, codes.is_empty(), "{:?}", ended);
            let is_head = variables
                .iter()
                .rev()
                .any(|(name, value)| name == b"REQUEST_METHOD" && value == b"HEAD");
            if !is_head {
                complete_response(&ended.stdout);
            }
            Ok(())
        })
        .unwrap();
}
