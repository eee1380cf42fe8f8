//! Decides which processes may share a socket that an import left open.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    net::{
        AddressFamily, SocketAddrAny, SocketAddrUnix, SocketType, getpeername, getsockname, sockopt,
    },
    process::getpid,
};
use wire::check::Sharing;

use crate::process::forks::Descriptor;

/// The default range of ephemeral ports, if the kernel's range cannot be read.
const CHOSEN_PORTS: (u16, u16) = (32_768, 60_999);

/// The kernel's description of a socket.
struct SocketDescription<'fd> {
    socket: BorrowedFd<'fd>,
    /// The socket's own address as text; `theirs` is the address of its peer.
    ours: Option<String>,
    theirs: Option<String>,
    is_connected: bool,
    listens: bool,
    is_unix: bool,
    kind: Option<SocketType>,
}

/// Describes the socket, and decides which processes may share it. `names` are the kernel's names
/// of all open descriptors. `None` for one end of a socket pair whose other end is open here, too.
pub(crate) fn judge(number: i32, names: &BTreeMap<i32, OsString>) -> Option<(String, Sharing)> {
    let Ok(copy) = Descriptor::duplicate(number) else {
        // The descriptor was closed meanwhile.
        return Some((format!("descriptor {number}"), Sharing::EachProcess));
    };
    let socket = SocketDescription::of(copy.as_fd());
    if socket.is_half_of_a_pair() && has_other_half(number, names) {
        return None;
    }
    Some((format!("descriptor {number}: {}", socket.ends()), socket.sharing()))
}

impl<'fd> SocketDescription<'fd> {
    fn of(socket: BorrowedFd<'fd>) -> Self {
        let peer = getpeername(socket);
        let domain = sockopt::socket_domain(socket);
        Self {
            socket,
            ours: getsockname(socket).ok().and_then(named),
            is_connected: peer.is_ok(),
            theirs: peer.ok().flatten().and_then(named),
            listens: sockopt::socket_acceptconn(socket).unwrap_or(false),
            is_unix: domain == Ok(AddressFamily::UNIX),
            kind: sockopt::socket_type(socket).ok().filter(|_| {
                [AddressFamily::UNIX, AddressFamily::INET, AddressFamily::INET6]
                    .iter()
                    .any(|known| domain == Ok(*known))
            }),
        }
    }

    fn sharing(&self) -> Sharing {
        use Sharing::{EachProcess, Forked};
        if self.kind.is_none() || self.kind == Some(SocketType::RAW) {
            // Netlink answers, or packets: the first reader takes them from all others.
            return EachProcess;
        }
        if self.kind == Some(SocketType::DGRAM) {
            return match (&self.ours, self.is_connected) {
                // Nothing is received, and datagrams of several senders do not mix. Loggers have
                // such a socket, connected to `/dev/log` or not.
                (None, true) if self.is_unix && self.theirs.is_some() => Forked,
                (None, false) => Forked,
                (Some(_), true) | (None, true) => EachProcess,
                // The kernel chose the address when the socket first sent something.
                (Some(_), false) if !self.is_unix && self.has_chosen_port() => Forked,
                (Some(_), false) => self.second_binding(),
            };
        }
        if self.listens || self.ours.is_some() && !self.is_connected {
            self.second_binding()
        } else {
            EachProcess
        }
    }

    /// Only one socket can bind an address, unless the socket allows sharing (`SO_REUSEPORT`).
    fn second_binding(&self) -> Sharing {
        if sockopt::socket_reuseport(self.socket).unwrap_or(false) {
            Sharing::EachProcess
        } else {
            Sharing::OneProcess
        }
    }

    fn has_chosen_port(&self) -> bool {
        let (lowest, highest) = chosen_ports().unwrap_or(CHOSEN_PORTS);
        let address =
            getsockname(self.socket).ok().and_then(|address| SocketAddr::try_from(address).ok());
        address.is_some_and(|address| {
            address.ip().is_unspecified() && (lowest..=highest).contains(&address.port())
        })
    }

    /// Is this socket one end of a socket pair: created and connected by this process, without an
    /// address?
    fn is_half_of_a_pair(&self) -> bool {
        let made_here =
            || sockopt::socket_peercred(self.socket).is_ok_and(|peer| peer.pid == getpid());
        self.is_unix
            && self.is_connected
            && self.ours.is_none()
            && self.theirs.is_none()
            && made_here()
    }

    fn ends(&self) -> String {
        match (&self.ours, &self.theirs) {
            (Some(ours), _) if self.listens => format!("listens at `{ours}`"),
            (Some(ours), Some(theirs)) => format!("connected to `{theirs}` from `{ours}`"),
            (None, Some(theirs)) => format!("connected to `{theirs}`"),
            (Some(ours), None) => format!("at `{ours}`"),
            (None, None) if self.is_connected => "connected to another process".to_owned(),
            (None, None) => "a socket without an address".to_owned(),
        }
    }
}

/// Is the other end of a socket pair open here, too? The kernel usually numbers both ends
/// consecutively; otherwise the answer is no.
fn has_other_half(number: i32, names: &BTreeMap<i32, OsString>) -> bool {
    let inode = |number| {
        let name = names.get(number)?.to_str()?;
        name.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok()
    };
    let Some(ours) = inode(&number) else {
        return false;
    };
    names.keys().filter(|other| inode(other).is_some_and(|theirs| theirs.abs_diff(ours) == 1)).any(
        |&other| {
            Descriptor::duplicate(other)
                .is_ok_and(|copy| SocketDescription::of(copy.as_fd()).is_half_of_a_pair())
        },
    )
}

fn chosen_ports() -> Option<(u16, u16)> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ports = range.split_whitespace().filter_map(|port| port.parse().ok());
    Some((ports.next()?, ports.next()?))
}

/// The address as text; `None` for an unnamed socket.
fn named(address: SocketAddrAny) -> Option<String> {
    if let Ok(internet) = SocketAddr::try_from(address.clone()) {
        // Port 0: the socket is neither bound nor connected.
        return (internet.port() != 0).then(|| internet.to_string());
    }
    let unix = SocketAddrUnix::try_from(address).ok()?;
    let path = unix.path().map(|path| path.to_string_lossy().into_owned());
    // The kernel may return an empty name for an unnamed socket.
    let abstract_name = unix.abstract_name().filter(|name| !name.is_empty());
    path.filter(|path| !path.is_empty())
        .or_else(|| Some(format!("@{}", String::from_utf8_lossy(abstract_name?))))
}
