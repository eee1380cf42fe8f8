//! Listening addresses of a pool: the values of `--listen`.

use std::{
    ffi::OsStr,
    fmt,
    net::SocketAddr,
    os::{
        fd::{OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::PathBuf,
    str::FromStr,
};

use rustix::net::{SocketAddrUnix, getsockname};
use serde::{Deserialize, Serialize};
use wire::host_port::{HostPort, address_hint};

/// Maximum path length of a Unix socket in bytes: the kernel's limit, minus room for the suffix of
/// the temporary name.
const MAX_PATH_BYTES: usize = 96;

/// Address of a listening socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Address {
    /// A Unix socket at this path.
    Unix(PathBuf),
    /// A TCP socket at HOST:PORT.
    Tcp(String),
    /// An inherited file descriptor that is a listening socket.
    Descriptor(RawFd),
}

impl Address {
    /// Standard input, where FastCGI process managers put a listening socket (FastCGI 1.0, 2.2).
    pub(crate) const STANDARD_INPUT: Self = Self::Descriptor(0);

    /// Does the address name one socket? The kernel chooses another port for each `HOST:0`.
    pub(super) fn is_fixed(&self) -> bool {
        !matches!(self, Self::Tcp(name) if name.ends_with(":0"))
    }

    /// The kernel's address of `socket`; `None` for an unnamed socket.
    pub(super) fn of(socket: &OwnedFd) -> Option<Self> {
        let name = getsockname(socket).ok()?;
        if let Ok(name) = SocketAddrUnix::try_from(name.clone()) {
            return Some(Self::Unix(PathBuf::from(OsStr::from_bytes(name.path_bytes()?))));
        }
        SocketAddr::try_from(name).ok().map(|name| Self::Tcp(name.to_string()))
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.len() {
                0 => Err(address_hint("")),
                length if length > MAX_PATH_BYTES => Err(format!(
                    "the path is {length} bytes long; give one of at most {MAX_PATH_BYTES} bytes, \
                     such as `unix:/run/app.sock`"
                )),
                _ => Ok(Self::Unix(PathBuf::from(path))),
            };
        }
        if let Some(number) = text.strip_prefix("fd:") {
            let is_plain = number.bytes().all(|byte| byte.is_ascii_digit());
            return match number.parse() {
                Ok(number) if is_plain => Ok(Self::Descriptor(number)),
                _ => {
                    Err("give the number of an inherited file descriptor, such as `fd:3`"
                        .to_owned())
                }
            };
        }
        match HostPort::parse(text) {
            Some(_) => Ok(Self::Tcp(text.to_owned())),
            None => Err(address_hint(text)),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
            Self::Descriptor(number) => write!(f, "fd:{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_address_is_recognised() {
        assert_eq!("unix:/run/a.sock".parse(), Ok(Address::Unix("/run/a.sock".into())));
        assert_eq!("127.0.0.1:9000".parse(), Ok(Address::Tcp("127.0.0.1:9000".into())));
        assert_eq!("[::1]:0".parse(), Ok(Address::Tcp("[::1]:0".into())));
        assert_eq!("fd:0".parse(), Ok(Address::STANDARD_INPUT));
        assert_eq!("fd:17".parse(), Ok(Address::Descriptor(17)));
        for wrong in [
            "",
            "unix:",
            "9000",
            ":9000",
            "host:",
            "host:99999",
            "fd:x",
            "fd:",
            "fd:-1",
            "fd:+1",
            "fd:2147483648",
        ] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
        assert!(format!("unix:/{}", "x".repeat(107)).parse::<Address>().is_err());
    }
}
