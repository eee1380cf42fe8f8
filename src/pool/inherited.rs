//! Descriptors that whoever started this process has left open for it: listening sockets by their
//! numbers (FastCGI 1.0, 2.2), and those that a service manager passes (sd_listen_fds(3)).
//!
//! A number is nobody's promise that a descriptor is there, and to own one by its number is unsafe.
//! So each is sent over a socket of ours, as to another process: what comes out is owned, and a
//! number that is none is an error.

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

use crate::pool::listeners::Address;

/// The first that a service manager passes; the others follow it.
const FIRST_PASSED: RawFd = 3;

/// The last of the standard streams, whose numbers must not become free.
const LAST_STREAM: RawFd = 2;

/// Descriptors that this process has found open and has made its own.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    sockets: BTreeMap<RawFd, OwnedFd>,
    /// Those that a service manager has passed to this process.
    passed: Range<RawFd>,
}

impl Inherited {
    /// Takes over what `named` asks for and what a service manager has passed. To be called before
    /// anything else is opened: a number could be that of a descriptor of ours.
    ///
    /// # Errors
    /// If a number is named twice or is no open descriptor, or if the variables of the service
    /// manager make no sense.
    pub(super) fn take(named: &[Address]) -> Result<Self> {
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

    /// Where to listen: what is `named`; without that, at the sockets that were passed, or else at
    /// standard input.
    pub(super) fn addresses(&self, named: &[Address]) -> Vec<Address> {
        addresses(named, &self.passed)
    }

    /// Hands out the descriptor that had this number.
    pub(super) fn give(&mut self, number: RawFd) -> Option<OwnedFd> {
        self.sockets.remove(&number)
    }

    /// Numbers of those that were passed and that nobody has asked for.
    pub(super) fn left(&self) -> impl Iterator<Item = RawFd> {
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

/// Does the environment speak of passed sockets that are for another process? Whoever stands
/// between it and this one, mostly a shell, has to become this one by `exec`.
pub(super) fn passed_to_another() -> Option<String> {
    let pid = env::var("LISTEN_PID").ok()?;
    (is_set("LISTEN_FDS") && pid.parse() != Ok(process::id())).then_some(pid)
}

/// Numbers of the sockets that were passed to this very process.
fn passed() -> Result<Range<RawFd>> {
    let is_ours = env::var("LISTEN_PID").is_ok_and(|pid| pid.parse() == Ok(process::id()));
    if !is_ours || !is_set("LISTEN_FDS") {
        return Ok(FIRST_PASSED..FIRST_PASSED);
    }
    let count = env::var_os("LISTEN_FDS").unwrap_or_default().to_string_lossy().into_owned();
    let number: u16 = count
        .parse()
        .with_context(|| format!("the variable LISTEN_FDS is `{count}`, and no count"))?;
    Ok(FIRST_PASSED..FIRST_PASSED + RawFd::from(number))
}

fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// Makes the descriptors with these numbers our own: closed on exec, under other numbers.
fn own(numbers: &BTreeSet<RawFd>) -> Result<BTreeMap<RawFd, OwnedFd>> {
    let (here, there) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // All are sent before the first comes back: what comes back takes a number that was free, which
    // may be the next to be asked for.
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
                    "descriptor `{number}` is not open; whoever starts wsgate must leave it open \
                     for it"
                )
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("descriptor `{number}` cannot be taken over"));
            }
        }
    }
    let mut sockets = BTreeMap::new();
    for &number in numbers {
        sockets.insert(
            number,
            receive(&there)
                .with_context(|| format!("descriptor `{number}` cannot be taken over"))?,
        );
    }
    for &number in numbers.iter().filter(|&&number| number > LAST_STREAM) {
        // What is started later would inherit it under the old number, too. It is open, as was just
        // seen.
        let _ = close(number);
    }
    Ok(sockets)
}

fn receive(from: &OwnedFd) -> Result<OwnedFd> {
    let received = descriptors::receive(from, &mut [0])?;
    received.descriptors.into_iter().next().context("the kernel passed no descriptor")
}

/// Asserts that `socket`, which had this number, can be listened at.
///
/// # Errors
/// If it is anything but a listening stream socket of a family that web servers use.
pub(super) fn check(number: RawFd, socket: &OwnedFd) -> Result<()> {
    if number == 0 && !sockopt::socket_acceptconn(socket).unwrap_or(false) {
        if let Some(pid) = passed_to_another() {
            bail!(
                "LISTEN_PID says that sockets were passed to process `{pid}`, which is not this \
                 one; start wsgate by `exec`"
            );
        }
        bail!("standard input is no listening socket; name an address with --listen");
    }
    let Ok(kind) = sockopt::socket_type(socket) else {
        bail!("descriptor `{number}` is no socket; pass a listening one, or name another address");
    };
    if kind != SocketType::STREAM {
        bail!(
            "descriptor `{number}` is a socket, but no stream; pass a listening one of type \
             SOCK_STREAM"
        );
    }
    let family = sockopt::socket_domain(socket)?;
    if ![AddressFamily::UNIX, AddressFamily::INET, AddressFamily::INET6].contains(&family) {
        bail!(
            "descriptor `{number}` is a socket of a family that is none of AF_UNIX, AF_INET and \
             AF_INET6"
        );
    }
    if !sockopt::socket_acceptconn(socket)? {
        bail!(
            "descriptor `{number}` is a socket that does not listen; whoever made it must call \
             listen() first"
        );
    }
    Ok(())
}
