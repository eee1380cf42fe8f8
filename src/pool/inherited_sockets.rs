//! Listening sockets that the parent process left open: the sockets of `--listen fd:N` (FastCGI
//! 1.0, 2.2), and the sockets that a service manager passes (sd_listen_fds(3)).
//!
//! A number does not prove that a file descriptor is open, and taking ownership by number is
//! unsafe. So each file descriptor is sent through a socket pair, as to another process. This
//! process owns the received copy, and sending a closed number is an error.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Display,
    io::IoSlice,
    ops::Range,
    os::fd::{AsRawFd as _, OwnedFd, RawFd},
    process,
};

use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
    unistd::close,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use wire::descriptors;

use crate::{
    exit::CommandError,
    pool::{address::Address, listen_error::refused},
};

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
    /// Takes over the file descriptors in `named`, which has each once, and those that a service
    /// manager passed. Call this before opening any file: a number in `named` could be a file
    /// descriptor of wsgate.
    ///
    /// # Errors
    /// If a number is not open, or the service manager's variables are invalid.
    pub(super) fn take_over(named: &[Address]) -> Result<Self, CommandError> {
        let passed = passed()?;
        let mut numbers: BTreeSet<RawFd> = passed.clone().collect();
        numbers.extend(addresses(named, &passed).iter().filter_map(|address| match address {
            Address::Descriptor(number) => Some(*number),
            Address::Unix(_) | Address::Tcp(_) => None,
        }));
        Ok(Self { sockets: own(&numbers)?, passed })
    }

    /// The addresses to listen on: those in `named`; without them, the sockets that a service
    /// manager passed; without these, standard input.
    pub(super) fn addresses(&self, named: &[Address]) -> Vec<Address> {
        addresses(named, &self.passed)
    }

    /// Removes and returns the listening socket that had this number.
    ///
    /// # Errors
    /// If the file descriptor is not a listening stream socket of a family that web servers use.
    pub(super) fn take(&mut self, number: RawFd) -> Result<OwnedFd, CommandError> {
        let socket = self.sockets.remove(&number).ok_or_else(|| not_open(number))?;
        check(number, &socket)?;
        Ok(socket)
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
fn passed() -> Result<Range<RawFd>, CommandError> {
    let is_ours = env::var("LISTEN_PID").is_ok_and(|pid| pid.parse() == Ok(process::id()));
    if !is_ours || !is_set("LISTEN_FDS") {
        return Ok(FIRST_PASSED_FD..FIRST_PASSED_FD);
    }
    let count = env::var_os("LISTEN_FDS").unwrap_or_default().to_string_lossy().into_owned();
    let number: u16 = count.parse().map_err(|_| {
        refused(
            format!("LISTEN_FDS is `{count}`, which is not a number"),
            "unset the variable, which a service manager sets to the number of passed sockets",
        )
    })?;
    Ok(FIRST_PASSED_FD..FIRST_PASSED_FD + RawFd::from(number))
}

fn is_set(name: &str) -> bool {
    env::var_os(name).is_some_and(|value| !value.is_empty())
}

fn not_open(number: RawFd) -> CommandError {
    refused(
        format!("file descriptor `{number}` is not open"),
        "the program that starts wsgate must open a listening socket with this number, and leave \
         it open",
    )
}

/// Moves these file descriptors to other numbers, owned and with close-on-exec.
///
/// # Errors
/// If a number is not open, or file descriptors are short.
pub(super) fn own(numbers: &BTreeSet<RawFd>) -> Result<BTreeMap<RawFd, OwnedFd>, CommandError> {
    let failed = |error: &dyn Display| {
        refused(
            format!("cannot take over the inherited file descriptors: {error}"),
            "raise the limit of open files (`ulimit -n`, `LimitNOFILE=`)",
        )
    };
    let (here, there) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(|error| failed(&error))?;
    // Send all before receiving any: a received file descriptor takes a free number, which may be
    // the next one in the list.
    for &number in numbers {
        if [here.as_raw_fd(), there.as_raw_fd()].contains(&number) {
            return Err(not_open(number));
        }
        let sent = sendmsg::<()>(
            here.as_raw_fd(),
            &[IoSlice::new(b"d")],
            &[ControlMessage::ScmRights(&[number])],
            MsgFlags::MSG_DONTWAIT,
            None,
        );
        match sent {
            Ok(_) => {}
            Err(Errno::EBADF) => return Err(not_open(number)),
            Err(error) => return Err(failed(&error)),
        }
    }
    let mut sockets = BTreeMap::new();
    for &number in numbers {
        let received = descriptors::receive(&there, &mut [0]).map_err(|error| failed(&error))?;
        let socket = received.descriptors.into_iter().next();
        sockets.insert(number, socket.ok_or_else(|| failed(&"the kernel has passed none"))?);
    }
    for &number in numbers.iter().filter(|&&number| number > LAST_STANDARD_STREAM) {
        // Otherwise later processes would inherit the socket under the old number, too. Closing
        // cannot fail, because the number was open a moment ago.
        let _ = close(number);
    }
    Ok(sockets)
}

/// Checks that `socket`, which had this number, accepts connections of web servers.
///
/// # Errors
/// If `socket` is not a listening stream socket of a family that web servers use.
fn check(number: RawFd, socket: &OwnedFd) -> Result<(), CommandError> {
    let is_listening = sockopt::socket_acceptconn(socket).unwrap_or(false);
    if number == 0 && !is_listening {
        return Err(match other_listen_pid() {
            Some(pid) => refused(
                format!(
                    "LISTEN_PID says that sockets were passed to process `{pid}`, not to this \
                     process"
                ),
                "start wsgate with `exec`, so that no shell stays between it and the service \
                 manager",
            ),
            None => refused(
                "standard input is not a listening socket",
                "name an address, such as `--listen unix:/run/app.sock`; process managers such as \
                 spawn-fcgi pass a socket on standard input",
            ),
        });
    }
    let wrong = |what: &str, hint: &str| {
        Err(refused(format!("file descriptor `{number}` is {what}"), hint))
    };
    let another = "pass a listening socket, or name another address with --listen";
    let Ok(kind) = sockopt::socket_type(socket) else { return wrong("not a socket", another) };
    if kind != SocketType::STREAM {
        return wrong("not a stream socket", "pass a listening socket of type SOCK_STREAM");
    }
    let family = sockopt::socket_domain(socket).ok();
    let families = [AddressFamily::UNIX, AddressFamily::INET, AddressFamily::INET6];
    if family.is_none_or(|family| !families.contains(&family)) {
        return wrong(
            "a socket of another family than AF_UNIX, AF_INET and AF_INET6",
            "pass a Unix socket or a TCP socket",
        );
    }
    if !is_listening {
        return wrong(
            "not a listening socket",
            "the program that created the socket must call listen() first",
        );
    }
    Ok(())
}
