//! The variables of a request (RFC 3875 4.1), from which the application's environ is made.

use std::net::SocketAddr;

use hyper::{
    HeaderMap, Version,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HOST},
    http::request::Parts,
};
use wire::percent;

/// Name of the server in `SERVER_SOFTWARE`.
const SOFTWARE: &str = concat!("wsgate-serve/", env!("CARGO_PKG_VERSION"));

/// The two ends of a connection, and how it is protected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) server: SocketAddr,
    pub(super) client: SocketAddr,
}

/// The variables of the request `parts` on a connection between `ends`.
pub(super) fn variables(parts: &Parts, ends: Ends) -> Vec<(Vec<u8>, Vec<u8>)> {
    let uri = &parts.uri;
    let target = uri.path_and_query().map_or(uri.path(), |target| target.as_str());
    let protocol = match parts.version {
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    };
    let mut variables: Vec<(Vec<u8>, Vec<u8>)> = [
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_SOFTWARE", SOFTWARE),
        ("SERVER_PROTOCOL", protocol),
        ("REQUEST_METHOD", parts.method.as_str()),
        ("REQUEST_SCHEME", "http"),
        ("REQUEST_URI", target),
        ("QUERY_STRING", uri.query().unwrap_or_default()),
        ("SCRIPT_NAME", ""),
        ("SERVER_NAME", &server_name(&parts.headers, ends.server)),
        ("SERVER_ADDR", &ends.server.ip().to_string()),
        ("SERVER_PORT", &ends.server.port().to_string()),
        ("REMOTE_ADDR", &ends.client.ip().to_string()),
        ("REMOTE_PORT", &ends.client.port().to_string()),
    ]
    .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
    .to_vec();
    variables.push((b"PATH_INFO".to_vec(), percent::decode(uri.path().as_bytes())));
    for (name, header) in [("CONTENT_TYPE", CONTENT_TYPE), ("CONTENT_LENGTH", CONTENT_LENGTH)] {
        if let Some(value) = parts.headers.get(header) {
            variables.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
        }
    }
    variables.extend(of_headers(&parts.headers));
    variables
}

/// The host that the client names, without its port.
fn server_name(headers: &HeaderMap, server: SocketAddr) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    if name.is_empty() { server.ip().to_string() } else { name.to_owned() }
}

/// `HTTP_NAME` of each header. The values of a header that comes several times are joined, as web
/// servers do. A name with `_` is left out: it would look like another one with `-`.
fn of_headers(headers: &HeaderMap) -> Vec<(Vec<u8>, Vec<u8>)> {
    let names = headers.keys().filter(|name| {
        !name.as_str().contains('_') && **name != CONTENT_TYPE && **name != CONTENT_LENGTH
    });
    names
        .map(|name| {
            let separator: &[u8] = if name == "cookie" { b"; " } else { b", " };
            let values: Vec<&[u8]> =
                headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
            let variable = name.as_str().to_ascii_uppercase().replace('-', "_");
            (format!("HTTP_{variable}").into_bytes(), values.join(separator))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn value(variables: &[(Vec<u8>, Vec<u8>)], name: &str) -> Option<String> {
        let (_, value) = variables.iter().find(|(found, _)| found == name.as_bytes())?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    #[test]
    fn variables_are_those_of_rfc_3875() {
        let (parts, ()) = Request::post("/a%20b%2Fc?x=%20y")
            .header("host", "localhost:8000")
            .header("content-type", "text/plain")
            .header("content-length", "3")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("x-a", "1")
            .header("x-a", "2")
            .header("x_a", "3")
            .body(())
            .unwrap()
            .into_parts();
        let server = "127.0.0.1:8000".parse().unwrap();
        let client = "127.0.0.2:4000".parse().unwrap();
        let variables = variables(&parts, Ends { server, client });
        for (name, expected) in [
            ("PATH_INFO", Some("/a b/c")),
            ("SCRIPT_NAME", Some("")),
            ("QUERY_STRING", Some("x=%20y")),
            ("REQUEST_URI", Some("/a%20b%2Fc?x=%20y")),
            ("REQUEST_METHOD", Some("POST")),
            ("SERVER_NAME", Some("localhost")),
            ("SERVER_PORT", Some("8000")),
            ("REMOTE_ADDR", Some("127.0.0.2")),
            ("CONTENT_TYPE", Some("text/plain")),
            ("CONTENT_LENGTH", Some("3")),
            ("HTTP_CONTENT_TYPE", None),
            ("HTTP_COOKIE", Some("a=1; b=2")),
            ("HTTP_X_A", Some("1, 2")),
            ("HTTP_HOST", Some("localhost:8000")),
        ] {
            assert_eq!(value(&variables, name).as_deref(), expected, "{name}");
        }
        let mut names: Vec<_> = variables.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), variables.len());
    }
}
