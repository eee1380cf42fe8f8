//! What trusted proxies say, valid and hostile.

use wire::trusted_proxies::{ProxyHeader, TrustedProxies, network};

use crate::wsgi::{
    forwarded::{Origin, origin, trust_proxies},
    variables::{DuplicatePolicy, Variables},
};

fn proxies(headers: &[ProxyHeader]) -> TrustedProxies {
    TrustedProxies {
        networks: ["10.0.0.0/8", "fd00::/8"].into_iter().filter_map(network).collect(),
        headers: headers.to_vec(),
    }
}

fn origin_of(header: ProxyHeader, value: &[u8]) -> Origin {
    let peer = [10, 0, 0, 1].into();
    origin(&proxies(&[header]), peer, |asked| (asked == header).then_some(value))
}

#[test]
fn the_client_is_the_last_address_that_is_not_trusted() {
    for (value, client) in [
        ("1.2.3.4", Some("1.2.3.4")),
        (" 6.6.6.6 , 1.2.3.4 ", Some("1.2.3.4")),
        ("6.6.6.6, 1.2.3.4, 10.9.9.9, fd00::1", Some("1.2.3.4")),
        ("10.0.0.2, 10.0.0.3", Some("10.0.0.2")),
        ("1.2.3.4:567", Some("1.2.3.4")),
        ("\"[2001:db8::1]:80\"", Some("2001:db8::1")),
        ("2001:db8::1", Some("2001:db8::1")),
        ("::ffff:1.2.3.4", Some("1.2.3.4")),
        ("6.6.6.6, unknown", None),
        ("6.6.6.6, unknown, 10.0.0.2", Some("10.0.0.2")),
        ("6.6.6.6, _hidden, 10.0.0.1", None),
        ("6.6.6.6,", None),
        ("", None),
        ("1.2.3.4:99999", None),
        ("1.2.3.4:", None),
        ("[::1", None),
        ("[1.2.3.4]", None),
        ("1.2.3", None),
        ("example.org", None),
        ("127.1\r\nX: y", None),
    ] {
        let found = origin_of(ProxyHeader::ForwardedFor, value.as_bytes()).client;
        let found = found.map(|(address, _)| address.to_string());
        assert_eq!(found.as_deref(), client, "{value}");
    }
    assert_eq!(origin_of(ProxyHeader::ForwardedFor, b"\xff, 1.2.3.4"), Origin::default());
    let huge = "6.6.6.6,".repeat(100_000) + "1.2.3.4";
    let found = origin_of(ProxyHeader::ForwardedFor, huge.as_bytes()).client;
    assert_eq!(found, Some(([1, 2, 3, 4].into(), None)));
}

#[test]
fn forwarded_is_read_from_its_end_too() {
    for (value, client, is_https, host) in [
        ("for=1.2.3.4;proto=https;host=a.example", Some("1.2.3.4"), Some(true), Some("a.example")),
        ("For=\"[2001:db8::1]:4711\"; Proto=http", Some("2001:db8::1"), Some(false), None),
        (
            "for=6.6.6.6;host=evil, for=1.2.3.4;host=\"a.example:8443\"",
            Some("1.2.3.4"),
            None,
            Some("a.example:8443"),
        ),
        (
            "for=6.6.6.6;host=evil, for=1.2.3.4;host=a;proto=https, for=10.0.0.2;host=inner",
            Some("1.2.3.4"),
            Some(true),
            Some("a"),
        ),
        ("for=10.0.0.3;proto=https, for=10.0.0.2;proto=http", Some("10.0.0.3"), Some(true), None),
        ("for=6.6.6.6;host=evil, for=_hidden;host=a", None, None, Some("a")),
        ("for=6.6.6.6;host=evil, for=unknown", None, None, None),
        ("for=6.6.6.6, proto=https", None, Some(true), None),
        ("for=\"6.6.6.6, for=1.2.3.4", None, None, None),
        ("for=6.6.6.6, evil", None, None, None),
        ("for=1.2.3.4;host=\"a\\\"b\"", Some("1.2.3.4"), None, None),
        ("for=1.2.3.4;host=\"a,b\"", Some("1.2.3.4"), None, None),
        ("for=1.2.3.4;host=a..b", Some("1.2.3.4"), None, None),
        ("for=1.2.3.4;host=..", Some("1.2.3.4"), None, None),
        ("for=1.2.3.4;host=.a.example", Some("1.2.3.4"), None, None),
        ("for=1.2.3.4;host=-a.example", Some("1.2.3.4"), None, None),
        ("for=1.2.3.4;host=a-.example", Some("1.2.3.4"), None, None),
        ("for=1.2.3.4;host=1.2.3.999", Some("1.2.3.4"), None, None),
        ("for=1.2.3.4;host=a.1", Some("1.2.3.4"), None, None),
        ("for=1.2.3.4;host=a_b.example.", Some("1.2.3.4"), None, Some("a_b.example.")),
        ("for=1.2.3.4;host=5.6.7.8", Some("1.2.3.4"), None, Some("5.6.7.8")),
        ("for=1.2.3.4;;", None, None, None),
        ("=", None, None, None),
        ("", None, None, None),
    ] {
        let found = origin_of(ProxyHeader::Forwarded, value.as_bytes());
        let client_found = found.client.map(|(address, _)| address.to_string());
        assert_eq!(
            (client_found.as_deref(), found.is_https, found.host.as_deref()),
            (client, is_https, host),
            "{value}"
        );
    }
}

#[test]
fn malformed_values_change_nothing() {
    for (header, valid, wrong) in [
        (
            ProxyHeader::ForwardedHost,
            &["a.example", "a:80", "[::1]:80", "evil, a", "A-b_c.d1"][..],
            &[
                "", "..", "a..b", "1.2.3", "a b", "a/b", "a@b", "a:", "a:0", "a:x", "[::1", "a,",
                "<script>", "[a]",
            ][..],
        ),
        (
            ProxyHeader::ForwardedProto,
            &["http", "HTTPS", "evil, https"],
            &["", "ftp", "https,", "http s", "on"],
        ),
        (ProxyHeader::ForwardedSsl, &["on", "off", "1", "No"], &["", "https", "2"]),
        (ProxyHeader::ForwardedPort, &["443", "1, 80"], &["", "0", "65536", "-1", "+1", "x"]),
        (ProxyHeader::ForwardedServer, &["a"], &["", "a:80", "a b"]),
        (
            ProxyHeader::ForwardedPrefix,
            &["/a", "/a/", "/", "/%C3%A4/b"],
            &["a", "//a", "/a/../b", "/a/%2e%2e", "/a?b", "/a%0d%0ab", "/a\\b", "http://a/"],
        ),
        (ProxyHeader::ScriptName, &["/a"], &["a", "/a#b"]),
    ] {
        for value in valid {
            assert_ne!(origin_of(header, value.as_bytes()), Origin::default(), "{value}");
        }
        for value in wrong {
            assert_eq!(origin_of(header, value.as_bytes()), Origin::default(), "{value}");
        }
    }
}

/// The variables that the application gets, of those that the matrix is about.
fn seen(headers: &[ProxyHeader], peer: &str, received: &[(&str, &str)]) -> String {
    let base = [
        ("REQUEST_METHOD", "GET"),
        ("REMOTE_ADDR", peer),
        ("REMOTE_HOST", "proxy.example"),
        ("REMOTE_PORT", "999"),
        ("HTTP_HOST", "inner:8080"),
        ("SERVER_NAME", "inner"),
        ("SERVER_PORT", "8080"),
        ("SCRIPT_NAME", "/app"),
        ("PATH_INFO", "/page"),
    ];
    let all = base.iter().chain(received).map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let mut variables =
        Variables::new(all, DuplicatePolicy::Last).unwrap_or_else(|refused| panic!("{refused}"));
    trust_proxies(&mut variables, &proxies(headers));
    let before: Vec<_> = base.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
    let mut changes = Vec::new();
    for pair in variables.pairs() {
        let name = String::from_utf8_lossy(pair.name).into_owned();
        let value = String::from_utf8_lossy(&pair.value).into_owned();
        let is_known = before.iter().any(|(known, old)| *known == name && *old == value);
        let is_default = ["QUERY_STRING", "SERVER_PROTOCOL"].contains(&&*name);
        if !is_known && !is_default {
            changes.push(format!("{name}={value}"));
        }
    }
    changes.sort();
    changes.join(" ")
}

/// The behaviour that mod_wsgi documents for `WSGITrustedProxies` and `WSGITrustedProxyHeaders`:
/// only the trusted header of each purpose reaches the application, and none from another peer.
#[test]
fn trusted_headers_act_and_others_for_the_same_purpose_are_removed() {
    use ProxyHeader::*;
    let trusted = "10.0.0.1";
    let other = "192.0.2.1";
    let address = |value| ("HTTP_X_FORWARDED_FOR", value);
    for (headers, peer, received, expected) in [
        // Nothing is trusted, so nothing changes.
        (&[][..], trusted, &[address("1.2.3.4")][..], "HTTP_X_FORWARDED_FOR=1.2.3.4"),
        // The address of the client.
        (
            &[ForwardedFor],
            trusted,
            &[address("1.2.3.4"), ("HTTP_X_REAL_IP", "6.6.6.6"), ("HTTP_X_CLIENT_IP", "6.6.6.6")],
            "HTTP_X_FORWARDED_FOR=1.2.3.4 REMOTE_ADDR=1.2.3.4",
        ),
        (
            &[RealIp],
            trusted,
            &[address("6.6.6.6"), ("HTTP_X_REAL_IP", "1.2.3.4"), ("HTTP_FORWARDED", "for=6.6.6.6")],
            "HTTP_X_REAL_IP=1.2.3.4 REMOTE_ADDR=1.2.3.4",
        ),
        (&[ClientIp], trusted, &[address("6.6.6.6")], ""),
        (
            &[ForwardedFor],
            other,
            &[address("6.6.6.6"), ("HTTP_X_REAL_IP", "6.6.6.6"), ("HTTP_X_CLIENT_IP", "6.6.6.6")],
            "",
        ),
        (&[ForwardedFor], "unix:", &[address("6.6.6.6")], ""),
        (&[ForwardedFor], "", &[address("6.6.6.6")], ""),
        // The scheme.
        (
            &[ForwardedProto],
            trusted,
            &[("HTTP_X_FORWARDED_PROTO", "https"), ("HTTP_X_FORWARDED_SSL", "off")],
            "HTTPS=on HTTP_X_FORWARDED_PROTO=https REQUEST_SCHEME=https SERVER_PORT=443",
        ),
        (
            &[ForwardedSsl],
            trusted,
            &[("HTTP_X_FORWARDED_PROTO", "http"), ("HTTP_X_FORWARDED_SSL", "on")],
            "HTTPS=on HTTP_X_FORWARDED_SSL=on REQUEST_SCHEME=https SERVER_PORT=443",
        ),
        (
            &[ForwardedProto],
            trusted,
            &[("HTTP_X_FORWARDED_PROTO", "http"), ("HTTPS", "on"), ("REQUEST_SCHEME", "https")],
            "HTTPS=off HTTP_X_FORWARDED_PROTO=http REQUEST_SCHEME=http SERVER_PORT=80",
        ),
        (
            &[ForwardedProto],
            other,
            &[("HTTP_X_FORWARDED_PROTO", "https"), ("HTTP_X_HTTPS", "on")],
            "",
        ),
        // Host, server and port.
        (
            &[ForwardedHost],
            trusted,
            &[("HTTP_X_FORWARDED_HOST", "www.example:8443"), ("HTTP_X_HOST", "evil")],
            "HTTP_HOST=www.example:8443 HTTP_X_FORWARDED_HOST=www.example:8443 \
             SERVER_NAME=www.example SERVER_PORT=8443",
        ),
        (
            &[ForwardedHost, ForwardedServer, ForwardedPort],
            trusted,
            &[
                ("HTTP_X_FORWARDED_HOST", "a"),
                ("HTTP_X_FORWARDED_SERVER", "b"),
                ("HTTP_X_FORWARDED_PORT", "444"),
            ],
            "HTTP_HOST=a HTTP_X_FORWARDED_HOST=a HTTP_X_FORWARDED_PORT=444 \
             HTTP_X_FORWARDED_SERVER=b SERVER_NAME=b SERVER_PORT=444",
        ),
        (
            &[ForwardedHost],
            other,
            &[("HTTP_X_FORWARDED_HOST", "evil"), ("HTTP_X_HOST", "evil")],
            "",
        ),
        // A header for another purpose stays as it is.
        (
            &[ForwardedFor],
            trusted,
            &[("HTTP_X_FORWARDED_HOST", "evil")],
            "HTTP_X_FORWARDED_HOST=evil",
        ),
        // The path of the application.
        (
            &[ForwardedPrefix],
            trusted,
            &[("HTTP_X_FORWARDED_PREFIX", "/site/"), ("HTTP_X_SCRIPT_NAME", "/evil")],
            "HTTP_X_FORWARDED_PREFIX=/site/ SCRIPT_NAME=/site/app",
        ),
        (
            &[ScriptName],
            trusted,
            &[("HTTP_X_FORWARDED_PREFIX", "/evil"), ("HTTP_X_SCRIPT_NAME", "/site")],
            "HTTP_X_SCRIPT_NAME=/site SCRIPT_NAME=/site",
        ),
        (&[ForwardedPrefix], other, &[("HTTP_X_FORWARDED_PREFIX", "/evil")], ""),
        // The standard header, for three purposes.
        (
            &[Forwarded],
            trusted,
            &[
                ("HTTP_FORWARDED", "for=\"1.2.3.4:56\";proto=https;host=www.example"),
                ("HTTP_X_FORWARDED_FOR", "6.6.6.6"),
                ("HTTP_X_FORWARDED_PROTO", "http"),
                ("HTTP_X_HOST", "evil"),
            ],
            "HTTPS=on HTTP_FORWARDED=for=\"1.2.3.4:56\";proto=https;host=www.example \
             HTTP_HOST=www.example REMOTE_ADDR=1.2.3.4 REMOTE_PORT=56 REQUEST_SCHEME=https \
             SERVER_NAME=www.example SERVER_PORT=443",
        ),
        (&[Forwarded], other, &[("HTTP_FORWARDED", "for=6.6.6.6;proto=https")], ""),
    ] {
        assert_eq!(seen(headers, peer, received), expected, "{headers:?} {peer} {received:?}");
    }
}
