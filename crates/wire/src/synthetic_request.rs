//! The CGI variables of a request that wsgate makes itself (RFC 3875 4.1): for `wsgate call`,
//! `wsgate check`, `--warm-up`, and the rehearsal of warm pools.

use crate::{
    host_port::HostPort,
    percent::{decode, encode_path},
};

/// The client of these requests, and their server.
const SOFTWARE: &str = concat!("wsgate/", env!("CARGO_PKG_VERSION"));

/// A request without body.
#[derive(Clone, Copy, Debug)]
pub struct SyntheticRequest<'a> {
    /// The request method.
    pub method: &'a str,
    /// The request comes over TLS.
    pub is_https: bool,
    /// The host, with or without a port.
    pub host: &'a str,
    /// The URL path of the application, decoded.
    pub script_name: &'a str,
    /// The path below that of the application, encoded.
    pub path: &'a str,
    /// The query, without `?`.
    pub query: &'a str,
}

impl SyntheticRequest<'_> {
    /// The target of the request: path and query.
    pub fn request_uri(&self) -> String {
        let mount = encode_path(self.script_name.as_bytes());
        let question = if self.query.is_empty() { "" } else { "?" };
        format!("{}{}{question}{}", String::from_utf8_lossy(&mount), self.path, self.query)
    }

    /// The variables of the request, each once.
    pub fn variables(&self) -> Vec<(&'static str, Vec<u8>)> {
        let HostPort { host, port } = HostPort::split(self.host);
        let port = port.unwrap_or(if self.is_https { "443" } else { "80" });
        let mut variables = [
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("SERVER_SOFTWARE", SOFTWARE),
            ("SERVER_PROTOCOL", "HTTP/1.1"),
            ("SERVER_NAME", host),
            ("SERVER_PORT", port),
            ("REMOTE_ADDR", "127.0.0.1"),
            ("REQUEST_METHOD", self.method),
            ("REQUEST_URI", &self.request_uri()),
            ("SCRIPT_NAME", self.script_name),
            ("QUERY_STRING", self.query),
            ("HTTP_HOST", self.host),
            ("HTTP_USER_AGENT", SOFTWARE),
            ("HTTP_ACCEPT", "*/*"),
        ]
        .map(|(name, value)| (name, value.as_bytes().to_vec()))
        .to_vec();
        variables.push(("PATH_INFO", decode(self.path.as_bytes())));
        if self.is_https {
            variables.push(("HTTPS", b"on".to_vec()));
        }
        variables
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_and_the_target_is_not() {
        let request = SyntheticRequest {
            method: "GET",
            is_https: true,
            host: "x.example:8443",
            script_name: "/a b",
            path: "/c%20d",
            query: "e=%20",
        };
        assert_eq!(request.request_uri(), "/a%20b/c%20d?e=%20");
        let variables = request.variables();
        for (name, value) in [
            ("SERVER_NAME", "x.example"),
            ("SERVER_PORT", "8443"),
            ("SCRIPT_NAME", "/a b"),
            ("PATH_INFO", "/c d"),
            ("QUERY_STRING", "e=%20"),
            ("HTTPS", "on"),
        ] {
            let found: Vec<_> = variables.iter().filter(|(known, _)| *known == name).collect();
            assert_eq!(found, [&(name, value.as_bytes().to_vec())]);
        }
        let usual = SyntheticRequest { is_https: false, host: "localhost", query: "", ..request };
        assert_eq!(usual.request_uri(), "/a%20b/c%20d");
        assert!(usual.variables().contains(&("SERVER_PORT", b"80".to_vec())));
    }
}
