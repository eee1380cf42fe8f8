//! Why a listening socket cannot be opened, and the next step for each cause.

use std::{fmt::Display, io, path::Path};

use diagnostics::message::{Code, LogMessage};
use rustix::process::geteuid;

use crate::{
    exit::CommandError,
    pool::{log_file::untrusted, socket_access::SocketAccess},
    system::trusted_path::Untrusted,
};

/// The step at which a Unix socket could not be created.
#[derive(Debug)]
pub(super) enum UnixError {
    /// The socket could not be bound.
    Bind(io::Error),
    /// Owner or permissions could not be set.
    Owner(io::Error),
    /// A stale socket could not be replaced.
    Replace(io::Error),
}

/// The error about a socket that cannot be opened.
pub(super) fn refused(sentence: impl Into<String>, hint: impl Into<String>) -> CommandError {
    CommandError::settings(LogMessage::new(Code::BadListener, sentence).hint(hint))
}

/// The error about a Unix socket at `path` that cannot be created.
pub(super) fn unix(path: &Path, access: &SocketAccess, error: &UnixError) -> CommandError {
    let shown = path.display();
    match error {
        UnixError::Bind(error) => unbound(path, error),
        UnixError::Owner(error) => refused(
            format!("cannot set the owner of the socket `{shown}`: {error}"),
            if access.user.is_some() || access.group.is_some() {
                "only root may give a socket to another user, or to a group without this user: \
                 start wsgate as root with --user, or change --socket-owner"
            } else {
                "a container needs the capability CHOWN for --user"
            },
        ),
        UnixError::Replace(error) => refused(
            format!("cannot replace the stale socket `{shown}`: {error}"),
            format!(
                "another user has left the socket in a directory like /tmp: remove it by `rm \
                 {shown}`, or listen at another path"
            ),
        ),
    }
}

fn unbound(path: &Path, error: &io::Error) -> CommandError {
    let sentence =
        |reason: &dyn Display| format!("cannot listen at `{}`: {reason}", path.display());
    if Untrusted::is_cause_of(error) {
        return CommandError::settings(untrusted(sentence(error)));
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new(".")).display();
    match error.kind() {
        io::ErrorKind::NotFound => refused(
            sentence(&"its directory does not exist"),
            format!(
                "create the directory `{directory}` for the user of the pool; a systemd unit does \
                 so by RuntimeDirectory="
            ),
        ),
        io::ErrorKind::PermissionDenied => refused(
            sentence(error),
            format!(
                "let user {} write in the directory `{directory}`, or listen in a directory of \
                 that user",
                geteuid().as_raw()
            ),
        ),
        io::ErrorKind::NotADirectory => {
            refused(sentence(error), "a part of the path before its last name is a file")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            refused(sentence(error), "listen at a path below /run, which can be written to")
        }
        _ => refused(
            sentence(error),
            format!("check that this user can create files in the directory `{directory}`"),
        ),
    }
}

/// The error about the TCP address `name`.
pub(super) fn tcp(name: &str, error: &io::Error) -> CommandError {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another server listens there, and `ss -tlnp` names it: stop that server, or listen at \
             another port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have the address: `ip address` lists its addresses, and \
             `0.0.0.0` means all"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 are for root: listen at a higher port, start wsgate as root with \
             --user, or let systemd listen there (ListenStream=)"
        }
        io::ErrorKind::NotFound => {
            "write an IP address such as 127.0.0.1, or add the name to /etc/hosts or the DNS"
        }
        _ => "write HOST:PORT with an address of this machine, such as 127.0.0.1:9000",
    };
    refused(format!("cannot listen at `{name}`: {error}"), hint)
}
