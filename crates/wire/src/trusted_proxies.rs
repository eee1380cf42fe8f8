//! Which proxies are trusted, and which of their headers say where a request came from.

use std::{net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Trusted proxies and their headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedProxies {
    /// The addresses of trusted proxies.
    pub networks: Vec<IpNet>,
    /// The headers that trusted proxies set, the most trusted first.
    pub headers: Vec<ProxyHeader>,
}

/// What a header of a proxy tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// The address of the client.
    Client,
    /// The scheme of the URL.
    Scheme,
    /// The host, as in the `Host` header.
    Host,
    /// The port of the server.
    Port,
    /// The name of the server.
    Server,
    /// The path of the application.
    Prefix,
}

macro_rules! headers {
    ($($header:ident = $name:literal, $variable:literal, [$($topic:ident),*],)*) => {
        /// A header that a proxy may set.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum ProxyHeader { $(#[doc = $name] $header,)* }

        impl ProxyHeader {
            /// All headers.
            pub const ALL: &[Self] = &[$(Self::$header,)*];

            /// The name of the header.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$header => $name,)* }
            }

            /// The variable of the header.
            pub const fn variable(self) -> &'static str {
                match self { $(Self::$header => $variable,)* }
            }

            /// What the header tells.
            pub const fn topics(self) -> &'static [Topic] {
                match self { $(Self::$header => &[$(Topic::$topic),*],)* }
            }
        }
    };
}

headers! {
    Forwarded = "Forwarded", "HTTP_FORWARDED", [Client, Scheme, Host],
    ForwardedFor = "X-Forwarded-For", "HTTP_X_FORWARDED_FOR", [Client],
    ClientIp = "X-Client-IP", "HTTP_X_CLIENT_IP", [Client],
    RealIp = "X-Real-IP", "HTTP_X_REAL_IP", [Client],
    ForwardedProto = "X-Forwarded-Proto", "HTTP_X_FORWARDED_PROTO", [Scheme],
    ForwardedScheme = "X-Forwarded-Scheme", "HTTP_X_FORWARDED_SCHEME", [Scheme],
    Scheme = "X-Scheme", "HTTP_X_SCHEME", [Scheme],
    ForwardedHttps = "X-Forwarded-HTTPS", "HTTP_X_FORWARDED_HTTPS", [Scheme],
    ForwardedSsl = "X-Forwarded-SSL", "HTTP_X_FORWARDED_SSL", [Scheme],
    Https = "X-HTTPS", "HTTP_X_HTTPS", [Scheme],
    ForwardedHost = "X-Forwarded-Host", "HTTP_X_FORWARDED_HOST", [Host],
    Host = "X-Host", "HTTP_X_HOST", [Host],
    ForwardedPort = "X-Forwarded-Port", "HTTP_X_FORWARDED_PORT", [Port],
    ForwardedServer = "X-Forwarded-Server", "HTTP_X_FORWARDED_SERVER", [Server],
    ForwardedPrefix = "X-Forwarded-Prefix", "HTTP_X_FORWARDED_PREFIX", [Prefix],
    ScriptName = "X-Script-Name", "HTTP_X_SCRIPT_NAME", [Prefix],
    ForwardedScriptName = "X-Forwarded-Script-Name", "HTTP_X_FORWARDED_SCRIPT_NAME", [Prefix],
}

impl FromStr for ProxyHeader {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let found = Self::ALL.iter().find(|header| header.name().eq_ignore_ascii_case(name));
        found.copied().ok_or(())
    }
}

impl TrustedProxies {
    /// Is nothing trusted?
    pub fn are_none(&self) -> bool {
        self.headers.is_empty()
    }

    /// Is `address` that of a trusted proxy?
    pub fn trust(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }
}

/// The addresses of `text`: a network in CIDR notation, or one address.
pub fn network(text: &str) -> Option<IpNet> {
    let address = || text.parse::<IpAddr>().ok().map(|address| IpNet::from(address.to_canonical()));
    text.parse::<IpNet>().ok().or_else(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        let proxies = TrustedProxies {
            networks: ["10.0.0.0/8", "192.168.1.1", "2001:db8::/32", "::1"]
                .map(|text| network(text).unwrap())
                .to_vec(),
            headers: Vec::new(),
        };
        for (address, is_trusted) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("192.168.1.1", true),
            ("192.168.1.2", false),
            ("2001:db8::5", true),
            ("::1", true),
            ("::2", false),
        ] {
            assert_eq!(proxies.trust(address.parse().unwrap()), is_trusted, "{address}");
        }
        for wrong in ["", "10.0.0.0/33", "10.0.0", "example.org", "::/129", "1.2.3.4/"] {
            assert_eq!(network(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn headers_are_found_by_their_names_and_variables_follow_from_them() {
        for header in ProxyHeader::ALL {
            assert_eq!(header.name().to_lowercase().parse(), Ok(*header));
            let variable = header.name().to_uppercase().replace('-', "_");
            assert_eq!(header.variable(), format!("HTTP_{variable}"));
        }
        assert_eq!("X-Forwarded".parse::<ProxyHeader>(), Err(()));
    }
}
