//! Hosts with ports: addresses, and `Host` headers.

/// A host, with the port that follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort<'a, P> {
    /// The host: a name, or an address; an IPv6 address in brackets.
    pub host: &'a str,
    /// The port.
    pub port: P,
}

impl<'a> HostPort<'a, u16> {
    /// The parts of HOST:PORT; none if `address` has another form.
    pub fn parse(address: &'a str) -> Option<Self> {
        let (host, port) = address.rsplit_once(':')?;
        let port = port.parse().ok().filter(|_| !host.is_empty())?;
        Some(Self { host, port })
    }
}

impl<'a> HostPort<'a, Option<&'a str>> {
    /// The parts of HOST or HOST:PORT, as a `Host` header has them.
    pub fn split(host: &'a str) -> Self {
        let is_port =
            |port: &str| !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit());
        match host.rsplit_once(':') {
            Some((host, port)) if is_port(port) => Self { host, port: Some(port) },
            _ => Self { host, port: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        assert_eq!(HostPort::parse("[::1]:80"), Some(HostPort { host: "[::1]", port: 80 }));
        for wrong in ["", ":80", "a", "a:", "a:b", "a:65536"] {
            assert_eq!(HostPort::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_host_may_lack_the_port() {
        for (whole, host, port) in [
            ("a:80", "a", Some("80")),
            ("a", "a", None),
            ("a:", "a:", None),
            ("[::1]:8080", "[::1]", Some("8080")),
        ] {
            assert_eq!(HostPort::split(whole), HostPort { host, port }, "{whole}");
        }
    }
}
