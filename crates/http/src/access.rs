//! Who may read: the token, and the `Host` header.
//!
//! A web page that a browser of this machine shows can reach the loopback interface: its author
//! lets the name of the page's server resolve to 127.0.0.1 (DNS rebinding). Such a request has that
//! name in `Host`, so without a token only addresses and `localhost` are accepted there.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    str,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, HOST},
};

/// The kind of socket that a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Tcp,
    /// The permissions of the socket's file say who may connect.
    Unix,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    /// The token is missing or wrong.
    Token,
    /// `Host` is a name that anybody may have chosen.
    Host,
}

/// The rules of a monitor.
pub(crate) struct Access {
    token: Option<String>,
}

impl Access {
    /// The rules of a monitor with this token.
    pub(crate) fn new(token: Option<String>) -> Self {
        Self { token }
    }

    /// Checks a request.
    ///
    /// # Errors
    /// The reason for which the request is refused.
    pub(crate) fn check(&self, headers: &HeaderMap, origin: Origin) -> Result<(), Denial> {
        match &self.token {
            Some(token) if !has_token(headers, token) => Err(Denial::Token),
            None if origin == Origin::Tcp && !has_local_host(headers) => Err(Denial::Host),
            _ => Ok(()),
        }
    }
}

/// Does the request have `token`: as a bearer token, or as the password that a browser asks for?
fn has_token(headers: &HeaderMap, token: &str) -> bool {
    let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some((scheme, credentials)) = value.and_then(|value| value.split_once(' ')) else {
        return false;
    };
    let credentials = credentials.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return is_same(credentials.as_bytes(), token.as_bytes());
    }
    if scheme.eq_ignore_ascii_case("basic")
        && let Ok(decoded) = STANDARD.decode(credentials)
        && let Some(colon) = decoded.iter().position(|&byte| byte == b':')
    {
        return is_same(&decoded[colon + 1..], token.as_bytes());
    }
    false
}

/// Compares in a time that does not depend on the first difference.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let difference = one.iter().zip(other).fold(0, |sum, (one, other)| sum | (one ^ other));
    one.len() == other.len() && std::hint::black_box(difference) == 0
}

/// Is `Host` an address, or `localhost`? HTTP/1.0 may leave the header out; a browser never does.
pub(crate) fn has_local_host(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let Some(host) = hosts.next() else { return true };
    let Ok(host) = host.to_str() else { return false };
    if hosts.next().is_some() {
        return false;
    }
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    name.parse::<Ipv4Addr>().is_ok() || name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn without_a_token_a_host_is_an_address_or_localhost() {
        let access = Access::new(None);
        for host in ["127.0.0.1:9180", "localhost", "LOCALHOST:9180", "[::1]:9180", "10.0.0.1"] {
            let headers = headers(&[("host", host)]);
            assert_eq!(access.check(&headers, Origin::Tcp), Ok(()), "{host}");
        }
        assert_eq!(access.check(&headers(&[]), Origin::Tcp), Ok(()));
        for host in ["evil.example", "evil.example:9180", "", "[::1", "localhost.evil.example"] {
            let headers = headers(&[("host", host)]);
            assert_eq!(access.check(&headers, Origin::Tcp), Err(Denial::Host), "{host}");
            assert_eq!(access.check(&headers, Origin::Unix), Ok(()), "{host}");
        }
    }

    #[test]
    fn a_token_is_a_bearer_token_or_a_password_and_allows_every_host() {
        let access = Access::new(Some("0123456789abcdef".to_owned()));
        let basic = format!("Basic {}", STANDARD.encode("me:0123456789abcdef"));
        for value in ["Bearer 0123456789abcdef", "bearer 0123456789abcdef", &basic] {
            let headers = headers(&[("authorization", value), ("host", "monitor.example")]);
            assert_eq!(access.check(&headers, Origin::Tcp), Ok(()), "{value}");
        }
        let wrong = format!("Basic {}", STANDARD.encode("0123456789abcdef:"));
        for value in ["", "Bearer", "Bearer 0123456789abcde", "Bearer 0123456789abcdeg", &wrong] {
            let headers = headers(&[("authorization", value)]);
            assert_eq!(access.check(&headers, Origin::Unix), Err(Denial::Token), "{value}");
        }
    }
}
