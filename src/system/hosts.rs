//! Addresses of hosts, looked up by `getent`: a statically linked program cannot load the modules
//! of the C library that ask all sources of names (nsswitch.conf(5)).

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    process::{Command, Stdio},
};

use wire::host_port::HostPort;

/// Addresses of HOST:PORT, the preferred one first.
///
/// # Errors
/// If the host has no address, or `address` is not HOST:PORT.
pub(crate) fn addresses(address: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    let Some(HostPort { host, port }) = HostPort::parse(address) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an address is HOST:PORT"));
    };
    let found = Command::new("getent")
        .args(["ahosts", "--", host])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match found {
        Ok(found) => listed(&String::from_utf8_lossy(&found.stdout), port),
        // Without `getent` the C library has no other sources than std uses.
        Err(_) => address.to_socket_addrs().map(Iterator::collect),
    }
}

/// The addresses in the output of `getent ahosts`, which has a line for each address and type of
/// socket.
fn listed(lines: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for line in lines.lines() {
        let address = line.split_whitespace().next().and_then(|word| word.parse::<IpAddr>().ok());
        let address = address.map(|address| SocketAddr::new(address, port));
        addresses.extend(address.filter(|address| !addresses.contains(address)));
    }
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_is_listed_once_in_the_order_of_the_machine() {
        let lines =
            "::1             STREAM localhost\n::1  DGRAM\n127.0.0.1  STREAM\n127.0.0.1  RAW\n";
        let expected: Vec<SocketAddr> =
            ["[::1]:80", "127.0.0.1:80"].map(|it| it.parse().expect("an address")).to_vec();
        assert_eq!(listed(lines, 80).ok(), Some(expected));
        assert_eq!(listed("", 80).map_err(|error| error.kind()), Err(io::ErrorKind::NotFound));
    }

    #[test]
    fn numeric_addresses_and_local_names_are_found_and_words_that_are_no_address_are_errors() {
        for (address, expected) in
            [("127.0.0.1:9000", "127.0.0.1:9000"), ("[::1]:9000", "[::1]:9000")]
        {
            assert_eq!(
                addresses(address).ok(),
                expected.parse().ok().map(|it| vec![it]),
                "{address}"
            );
        }
        let local = addresses("localhost:9000").unwrap_or_default();
        assert!(
            !local.is_empty() && local.iter().all(|it| it.ip().is_loopback() && it.port() == 9000),
            "{local:?}"
        );
        for wrong in
            ["", "localhost", "localhost:", "localhost:x", "-V:80", "no-such-host.invalid:80"]
        {
            assert!(addresses(wrong).is_err(), "{wrong}");
        }
    }
}
