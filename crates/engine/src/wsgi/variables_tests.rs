//! Which variables the application receives, and their values.

use crate::wsgi::{names::KnownVariable, variables::*};

type Received = [(&'static [u8], &'static [u8])];

const GET: (&[u8], &[u8]) = (b"REQUEST_METHOD", b"GET");

fn variables(received: &Received, duplicates: DuplicatePolicy) -> Variables<'static> {
    let received = [&[GET], received].concat();
    Variables::new(received, duplicates).unwrap_or_else(|refused| panic!("{refused}"))
}

/// The value of each variable `name`, which should occur at most once.
fn values(variables: &Variables<'_>, name: &str) -> Vec<String> {
    let pairs = variables.pairs().iter().filter(|pair| pair.name == name.as_bytes());
    pairs.map(|pair| String::from_utf8_lossy(&pair.value).into_owned()).collect()
}

#[test]
fn a_name_comes_once_and_the_policy_chooses_its_value() {
    let received: &Received = &[
        (b"A", b"1"),
        (b"SERVER_NAME", b"first"),
        (b"A", b"2"),
        (b"B", b""),
        (b"SERVER_NAME", b"last"),
        (b"A", b"3"),
    ];
    for (policy, a, name) in
        [(DuplicatePolicy::First, "1", "first"), (DuplicatePolicy::Last, "3", "last")]
    {
        let variables = variables(received, policy);
        assert_eq!(values(&variables, "A"), [a]);
        assert_eq!(values(&variables, "B"), [""]);
        assert_eq!(values(&variables, "SERVER_NAME"), [name]);
        assert_eq!(variables.get(KnownVariable::ServerName), Some(name.as_bytes()));
    }
}

#[test]
fn variables_that_no_application_may_see_are_withheld() {
    let names: [&[u8]; 5] =
        [b"HTTP_PROXY", b"HTTP_CONTENT_TYPE", b"HTTP_CONTENT_LENGTH", b"wsgi.input", b"wsgate.x"];
    let received = names.map(|name| (name, &b"x"[..]));
    let variables = variables(&received, DuplicatePolicy::Last);
    for name in names {
        assert!(variables.pairs().iter().all(|pair| pair.name != name), "{name:?}");
    }
}

#[test]
fn credentials_come_from_the_first_spelling_that_has_a_value() {
    let received: &Received = &[
        (b"REDIRECT_HTTP_AUTHORIZATION", b""),
        (b"Authorization", b"Basic eA=="),
        (b"REDIRECT_REDIRECT_HTTP_AUTHORIZATION", b"Basic eQ=="),
    ];
    let variables = variables(received, DuplicatePolicy::First);
    assert_eq!(values(&variables, "HTTP_AUTHORIZATION"), ["Basic eA=="]);
}

#[test]
fn empty_lengths_are_left_out_and_the_other_variables_stay_known() {
    let received: &Received = &[
        (b"CONTENT_LENGTH", b""),
        (b"CONTENT_TYPE", b""),
        (b"SERVER_NAME", b"s"),
        (b"QUERY_STRING", b"q"),
    ];
    let variables = variables(received, DuplicatePolicy::First);
    assert_eq!(values(&variables, "CONTENT_LENGTH"), [""; 0]);
    assert_eq!(values(&variables, "CONTENT_TYPE"), [""; 0]);
    assert_eq!(variables.get(KnownVariable::ServerName), Some(&b"s"[..]));
    assert_eq!(variables.get(KnownVariable::QueryString), Some(&b"q"[..]));
    assert_eq!(variables.body_length(), BodyLength::Exactly(0));
    assert_eq!(variables.body_length_in_stream(), BodyLength::UntilEnd);
}

#[test]
fn variables_that_the_pep_requires_are_added() {
    let variables = variables(&[(b"HTTPS", b"on")], DuplicatePolicy::First);
    assert_eq!(variables.scheme(), "https");
    assert_eq!(values(&variables, "SERVER_NAME"), ["localhost"]);
    assert_eq!(values(&variables, "SERVER_PORT"), ["443"]);
    assert_eq!(values(&variables, "SERVER_PROTOCOL"), ["HTTP/1.0"]);
    assert_eq!(values(&variables, "QUERY_STRING"), [""]);
}

#[test]
fn a_malformed_method_length_or_port_is_refused() {
    for received in [
        &[(&b"REQUEST_METHOD"[..], &b""[..])][..],
        &[(b"REQUEST_METHOD", b"G T")],
        &[GET, (b"CONTENT_LENGTH", b"-1")],
        &[GET, (b"CONTENT_LENGTH", b"9223372036854775808")],
        &[GET, (b"SERVER_PORT", b"http")],
    ] {
        let refused = Variables::new(received.iter().copied(), DuplicatePolicy::First);
        assert!(refused.is_err(), "{received:?}");
    }
}

#[test]
fn a_mount_moves_the_path_only_below_itself() {
    let received: &Received = &[(b"SCRIPT_NAME", b""), (b"PATH_INFO", b"/app/x")];
    let mut below = variables(received, DuplicatePolicy::First);
    below.mount_at("/app");
    assert_eq!(values(&below, "SCRIPT_NAME"), ["/app"]);
    assert_eq!(values(&below, "PATH_INFO"), ["/x"]);
    let mut beside = variables(received, DuplicatePolicy::First);
    beside.mount_at("/ap");
    assert_eq!(values(&beside, "PATH_INFO"), ["/app/x"]);
}
