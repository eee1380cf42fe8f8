//! Protocol of the control socket: the client sends one command as a line, and reads the response
//! until the pool closes the connection.

use std::{os::unix::net::UnixStream, path::Path, time::Duration};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
        sockopt::{self, Timeout},
    },
};

/// Suffix of a control socket's file; the pool's name is before it.
pub const SOCKET_SUFFIX: &str = ".pool";

/// Command of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlCommand {
    /// Send the status, as JSON.
    Status,
    /// Reload the code, and send a [`ReloadResult`].
    Reload,
    /// Stop. The end of the connection is the response.
    Stop,
}

impl ControlCommand {
    /// The line on the wire.
    pub fn line(self) -> &'static str {
        match self {
            Self::Status => "status\n",
            Self::Reload => "reload\n",
            Self::Stop => "stop\n",
        }
    }

    /// The command in `line`.
    pub fn from_line(line: &[u8]) -> Option<Self> {
        [Self::Status, Self::Reload, Self::Stop]
            .into_iter()
            .find(|command| command.line().as_bytes() == line)
    }
}

/// Result of a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadResult {
    /// The new code serves.
    Done,
    /// The new code could not be loaded.
    Failed,
}

impl ReloadResult {
    /// The line on the wire.
    pub fn line(self) -> &'static str {
        match self {
            Self::Done => "done\n",
            Self::Failed => "failed\n",
        }
    }

    /// The result in `answer`; `None` if the pool closed the connection without a result.
    pub fn from_answer(answer: &str) -> Option<Self> {
        match answer {
            "" => None,
            answer if answer == Self::Done.line() => Some(Self::Done),
            _ => Some(Self::Failed),
        }
    }
}

/// Connects to the socket at `path`. Waits no longer than `limit` for room in its accept queue.
///
/// # Errors
/// `AGAIN` if the queue stays full; otherwise the error of the kernel.
pub fn connect_within(path: &Path, limit: Duration) -> Result<UnixStream, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_timeout(&socket, Timeout::Send, Some(limit))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_result_comes_back_as_it_was_sent() {
        for command in [ControlCommand::Status, ControlCommand::Reload, ControlCommand::Stop] {
            assert_eq!(ControlCommand::from_line(command.line().as_bytes()), Some(command));
        }
        for wrong in [&b""[..], b"status", b"stop\n\n", b"\xff\n"] {
            assert_eq!(ControlCommand::from_line(wrong), None);
        }
        for result in [ReloadResult::Done, ReloadResult::Failed] {
            assert_eq!(ReloadResult::from_answer(result.line()), Some(result));
        }
        assert_eq!(ReloadResult::from_answer(""), None);
    }
}
