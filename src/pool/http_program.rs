//! Becoming `wsgate-http`, the program that speaks HTTP.
//!
//! The new program gets settings and sockets as one message on standard input. No argument and no
//! environment variable has a token, which other users could read there.

use std::{
    env,
    os::{fd::BorrowedFd, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use diagnostics::message::{Code, LogMessage};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use wire::{
    descriptors,
    message::{Message, encode},
};

use crate::{
    exit::CommandError,
    system::installed_file::{
        NotInstalled, {self},
    },
};

/// The program that speaks HTTP.
const PROGRAM: &str = "wsgate-http";

/// The path of the program.
///
/// # Errors
/// If the program is not installed.
pub(super) fn find() -> Result<PathBuf, CommandError> {
    installed_file::find(PROGRAM, "WSGATE_HTTP").map_err(not_installed)
}

/// Executes `program`, which returns only if that fails.
pub(super) fn execute(
    program: &Path,
    launch: &impl Message,
    sockets: &[BorrowedFd<'_>],
) -> CommandError {
    let failed = |error: &dyn std::fmt::Display| {
        CommandError::settings(
            LogMessage::new(
                Code::NoHttpProgram,
                format!("cannot execute `{}`: {error}", program.display()),
            )
            .hint("install wsgate again, for this machine"),
        )
    };
    let Ok(message) = encode(launch) else { return failed(&"its settings are too long") };
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let (here, there) = match pair {
        Ok(pair) => pair,
        Err(error) => return failed(&error),
    };
    if let Err(error) = descriptors::send(&here, &message, sockets) {
        return failed(&error);
    }
    let mut command = Command::new(program);
    // The arguments are for people who read them in `ps`.
    command.arg0("wsgate").args(env::args_os().skip(1)).stdin(there);
    failed(&command.exec())
}

fn not_installed(reason: NotInstalled) -> CommandError {
    let (sentence, hint) = match reason {
        NotInstalled::At([one, other]) => (
            format!("`{PROGRAM}` was not found at `{}` or `{}`", one.display(), other.display()),
            "install wsgate again, from the wheel, package or archive that it came from, or set \
             the variable WSGATE_HTTP to its path",
        ),
        NotInstalled::Variable(path) => (
            format!("`{PROGRAM}` was not found at `{}`", path.display()),
            "correct or unset the variable WSGATE_HTTP",
        ),
        NotInstalled::NoProgram(error) => (
            format!("the path of this program is unknown: {error}"),
            "mount /proc, or set the variable WSGATE_HTTP to the path of wsgate-http",
        ),
    };
    CommandError::settings(LogMessage::new(Code::NoHttpProgram, sentence).hint(hint))
}
