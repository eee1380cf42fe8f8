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

/// What is wrong with `address`, which is neither unix:PATH nor HOST:PORT, and how to write it.
pub fn address_hint(address: &str) -> String {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    match address.rsplit_once(':') {
        _ if is_number(address) => {
            format!("the host is missing, such as in `127.0.0.1:{address}`")
        }
        _ if address.contains('/') && !address.contains("://") => {
            format!("a Unix socket has the prefix `unix:`, such as `unix:{address}`")
        }
        Some((host, port)) if is_number(port) && !host.is_empty() => {
            format!("a port is a number from 0 to 65535, such as in `{host}:9000`")
        }
        _ => "give unix:PATH or HOST:PORT, such as `unix:/run/app.sock` or `127.0.0.1:9000`"
            .to_owned(),
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
