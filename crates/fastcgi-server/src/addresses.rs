//! `FCGI_WEB_SERVER_ADDRS`: the peers from which an application accepts connections (FastCGI 1.0,
//! 2.3 and 3.2).
//!
//! The specification has IPv4 addresses only. This crate also accepts IPv6 addresses, as other
//! implementations do.

use std::{error, fmt, net::IpAddr};

/// The addresses from which connections are accepted.
///
/// ```
/// use fastcgi_server::addresses::Addresses;
///
/// let addresses = Addresses::parse("199.170.183.28,199.170.183.71")?;
/// assert!(addresses.allow(Some([199, 170, 183, 71].into())));
/// assert!(!addresses.allow(Some([199, 170, 183, 72].into())));
/// assert!(!addresses.allow(None), "not TCP/IP");
/// # Ok::<(), fastcgi_server::addresses::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Canonical addresses: no IPv4-mapped IPv6 address is among them.
    listed: Vec<IpAddr>,
}

/// An item of the list is not an IP address. Log the error (FastCGI 1.0, 7), and do not continue as
/// if the list were not set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    /// The item without the blanks around it. An item is empty between two adjacent commas and in
    /// an empty list.
    pub item: String,
}

impl Addresses {
    /// Name of the environment variable that holds the list.
    pub const VARIABLE: &'static str = "FCGI_WEB_SERVER_ADDRS";

    /// Parses a comma-separated list of addresses. Blanks around an address are ignored.
    ///
    /// # Errors
    ///
    /// [`AddressError`] with the first item that is not an address. Numbers with leading zeros are
    /// refused, because some programs read them as octal.
    pub fn parse(list: &str) -> Result<Self, AddressError> {
        let address = |item: &str| {
            let item = item.trim_ascii();
            item.parse()
                .map(|address: IpAddr| address.to_canonical())
                .map_err(|_| AddressError { item: item.to_owned() })
        };
        Ok(Self { listed: list.split(',').map(address).collect::<Result<_, _>>()? })
    }

    /// Are connections from `peer` accepted? If not, close the connection before reading from it.
    /// `None` is a peer without TCP/IP, which is never allowed (FastCGI 1.0, 3.2).
    pub fn allow(&self, peer: Option<IpAddr>) -> bool {
        // A dual-stack socket reports IPv4 peers as `::ffff:192.0.2.1`.
        peer.is_some_and(|peer| self.listed.contains(&peer.to_canonical()))
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` in `{}` is no IP address", self.item, Addresses::VARIABLE)
    }
}

impl error::Error for AddressError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(list: &str, peer: &str) -> bool {
        Addresses::parse(list).unwrap().allow(Some(peer.parse().unwrap()))
    }

    #[test]
    fn f04_the_list_of_the_specification_allows_its_members_and_nobody_else() {
        let list = "199.170.183.28,199.170.183.71";
        assert!(allows(list, "199.170.183.28"));
        assert!(allows(list, "199.170.183.71"));
        assert!(!allows(list, "199.170.183.29"));
        assert!(!allows(list, "::1"));
    }

    #[test]
    fn f04_a_peer_without_an_ip_address_is_not_allowed() {
        assert!(!Addresses::parse("127.0.0.1").unwrap().allow(None));
    }

    #[test]
    fn f04_an_ipv4_peer_of_an_ipv6_listener_is_the_same_peer() {
        assert!(allows("127.0.0.1", "::ffff:127.0.0.1"));
        assert!(allows("::ffff:127.0.0.1", "127.0.0.1"));
        assert!(allows("10.0.0.1, 2001:db8::1\t", "2001:db8::1"));
    }

    #[test]
    fn f04_an_item_that_is_no_address_is_named() {
        for (list, item) in [
            ("", ""),
            (" ", ""),
            ("127.0.0.1,", ""),
            (",127.0.0.1", ""),
            ("127.0.0.1, localhost", "localhost"),
            ("256.0.0.1", "256.0.0.1"),
            ("127.0.0.01", "127.0.0.01"),
            ("127.0.0.1:9000", "127.0.0.1:9000"),
            ("127.0.0.1 127.0.0.2", "127.0.0.1 127.0.0.2"),
        ] {
            assert_eq!(
                Addresses::parse(list),
                Err(AddressError { item: item.to_owned() }),
                "{list:?}"
            );
        }
        let error = Addresses::parse("here").unwrap_err();
        assert_eq!(error.to_string(), "`here` in `FCGI_WEB_SERVER_ADDRS` is no IP address");
    }
}
