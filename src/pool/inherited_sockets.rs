//! Listening sockets that the parent process left open: the sockets of `--listen fd:N` (FastCGI
//! 1.0, 2.2), and the sockets that a service manager passes (sd_listen_fds(3)).
//!
//! A number does not prove that a file descriptor is open, and taking ownership by number is
//! unsafe. So each file descriptor is sent through a socket pair, as to another process. This
//! process owns the received copy, and sending a closed number is an error.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    io::IoSlice,
    ops::Range,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
    process,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
    unistd::close,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use wire::descriptors;

use crate::pool::address::Address;

/// The first file descriptor that a service manager passes; the others have the next numbers.
const FIRST_PASSED_FD: RawFd = 3;

/// Last standard stream. Numbers up to this one must stay open.
const LAST_STANDARD_STREAM: RawFd = 2;

/// File descriptors that this process inherited and now owns.
#[derive(Debug, Default)]
pub(super) struct InheritedSockets {
    sockets: BTreeMap<RawFd, OwnedFd>,
    /// Numbers that a service manager passed to this process.
    passed: Range<RawFd>,
}

impl InheritedSockets {
    /// Takes over the file descriptors in `named` and those that a service manager passed. Call
    /// this before opening any file: a number in `named` could be a file descriptor of wsgate.
    ///
    /// # Errors
    /// If a number is named twice or is not open, or the service manager's variables are invalid.
    pub(super) fn take_over(named: &[Address]) -> Result<Self> {
        let passed = passed()?;
        let mut numbers: BTreeSet<RawFd> = passed.clone().collect();
        let mut seen = BTreeSet::new();
        for address in addresses(named, &passed) {
            if let Address::Descriptor(number) = address {
                if !seen.insert(number) {
                    bail!("`fd:{number}` is named twice; once is enough");
                }
                numbers.insert(number);
            }
        }
        Ok(Self { sockets: own(&numbers)?, passed })
    }

    /// The addresses to listen on: those in `named`; without them, the sockets that a service
    /// manager passed; without these, standard input.
    pub(super) fn addresses(&self, named: &[Address]) -> Vec<Address> {
        addresses(named, &self.passed)
    }

    /// Removes and returns the file descriptor that had this number.
    pub(super) fn take(&mut self, number: RawFd) -> Option<OwnedFd> {
        self.sockets.remove(&number)
    }

    /// Numbers of the file descriptors that were not taken.
    pub(super) fn unused(&self) -> impl Iterator<Item = RawFd> {
        self.sockets.keys().copied()
    }
}

fn addresses(named: &[Address], passed: &Range<RawFd>) -> Vec<Address> {
    if !named.is_empty() {
        named.to_vec()
    } else if !passed.is_empty() {
        passed.clone().map(Address::Descriptor).collect()
    } else {
        vec![Address::STANDARD_INPUT]
    }
}

/// The pid in `LISTEN_PID`, if sockets were passed to another process. A shell that starts wsgate
/// without `exec` causes this.
fn other_listen_pid() -> Option<String> {
    let pid = env::var("LISTEN_PID").ok()?;
    (is_set("LISTEN_FDS") && pid.parse() != Ok(process::id())).then_some(pid)
}

/// Numbers of the sockets that a service manager passed to this process.
///
/// # Errors
/// If `LISTEN_FDS` is not a number.
fn passed() -> Result<Range<RawFd>> {
    let is_ours = env::var("LISTEN_PID").is_ok_and(|pid| pid.parse() == Ok(process::id()));
    if !is_ours || !is_set("LISTEN_FDS") {
        return Ok(FIRST_PASSED_FD..FIRST_PASSED_FD);
    }
    let count = env::var_os("LISTEN_FDS").unwrap_or_default().to_string_lossy().into_owned();
    let number: u16 =
        count.parse().with_context(|| format!("LISTEN_FDS is `{count}`, which is not a number"))?;
    Ok(FIRST_PASSED_FD..FIRST_PASSED_FD + RawFd::from(number))
}

fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// Moves these file descriptors to other numbers, owned and with close-on-exec.
///
/// # Errors
/// If a number is not open, or file descriptors are short.
fn own(numbers: &BTreeSet<RawFd>) -> Result<BTreeMap<RawFd, OwnedFd>> {
    let (here, there) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // Send all before receiving any: a received file descriptor takes a free number, which may be
    // the next one in the list.
    for &number in numbers {
        let sent = if [here.as_raw_fd(), there.as_raw_fd()].contains(&number) {
            Err(Errno::EBADF)
        } else {
            let rights = [ControlMessage::ScmRights(&[number])];
            sendmsg::<()>(
                here.as_raw_fd(),
                &[IoSlice::new(b"d")],
                &rights,
                MsgFlags::MSG_DONTWAIT,
                None,
            )
        };
        match sent {
            Ok(_) => {}
            Err(Errno::EBADF) => {
                bail!(
                    "file descriptor `{number}` is not open; the program that starts wsgate must \
                     leave it open"
                )
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot take over file descriptor `{number}`"));
            }
        }
    }
    let mut sockets = BTreeMap::new();
    for &number in numbers {
        sockets.insert(
            number,
            receive(&there)
                .with_context(|| format!("cannot take over file descriptor `{number}`"))?,
        );
    }
    for &number in numbers.iter().filter(|&&number| number > LAST_STANDARD_STREAM) {
        // Otherwise later processes would inherit the socket under the old number, too. Closing
        // cannot fail, because the number was open a moment ago.
        let _ = close(number);
    }
    Ok(sockets)
}

fn receive(from: &OwnedFd) -> Result<OwnedFd> {
    let received = descriptors::receive(from, &mut [0])?;
    received.descriptors.into_iter().next().context("the kernel passed no file descriptor")
}

/// Checks that `socket`, which had this number, accepts connections of web servers.
///
/// # Errors
/// If `socket` is not a listening stream socket of a family that web servers use.
pub(super) fn check(number: RawFd, socket: &OwnedFd) -> Result<()> {
    if number == 0 && !sockopt::socket_acceptconn(socket).unwrap_or(false) {
        if let Some(pid) = other_listen_pid() {
            bail!(
                "LISTEN_PID says that sockets were passed to process `{pid}`, not to this process; \
                 start wsgate with `exec`"
            );
        }
        bail!("standard input is not a listening socket; name an address with --listen");
    }
    let Ok(kind) = sockopt::socket_type(socket) else {
        bail!(
            "file descriptor `{number}` is not a socket; pass a listening socket, or name another \
                address"
        );
    };
    if kind != SocketType::STREAM {
        bail!(
            "file descriptor `{number}` is not a stream socket; pass a listening socket of type \
             SOCK_STREAM"
        );
    }
    let family = sockopt::socket_domain(socket)?;
    if ![AddressFamily::UNIX, AddressFamily::INET, AddressFamily::INET6].contains(&family) {
        bail!(
            "file descriptor `{number}` is a socket of another family than AF_UNIX, AF_INET and \
             AF_INET6"
        );
    }
    if !sockopt::socket_acceptconn(socket)? {
        bail!(
            "file descriptor `{number}` is not a listening socket; the program that created it \
             must call listen() first"
        );
    }
    Ok(())
}
