//! Protocol of the control socket: the client sends one command as a line, and reads the response
//! until the pool closes the connection.

use std::{borrow::Cow, os::unix::net::UnixStream, path::Path, time::Duration};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with,
        sockopt::{self, Timeout},
    },
};

/// Longest line of a command in bytes.
pub const MAX_LINE_BYTES: usize = 24;

/// Suffix of a control socket's file; the pool's name is before it.
pub const SOCKET_SUFFIX: &str = ".pool";

/// First word of the line about a reload that succeeded.
const DONE: &str = "done";

/// First word of the line about a reload that failed.
const FAILED: &str = "failed";

/// Command of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlCommand {
    /// Send the status, as JSON.
    Status,
    /// Reload the code, and send a [`ReloadResult`].
    Reload,
    /// Execute the installed program of wsgate, reload the code, and send a [`ReloadResult`].
    Upgrade,
    /// Stop. The end of the connection is the response.
    Stop,
    /// Send the Python processes, as a JSON list of
    /// [`PoolProcess`](crate::process_stacks::PoolProcess).
    Processes,
    /// Send the stacks of the process with this number, as JSON
    /// ([`StacksAnswer`](crate::process_stacks::StacksAnswer)).
    Stacks(i32),
}

/// Beginning of the line of [`ControlCommand::Stacks`]; the process id follows.
const STACKS_PREFIX: &str = "stacks ";

impl ControlCommand {
    /// The line on the wire.
    pub fn line(self) -> Cow<'static, str> {
        match self {
            Self::Status => "status\n".into(),
            Self::Reload => "reload\n".into(),
            Self::Upgrade => "upgrade\n".into(),
            Self::Stop => "stop\n".into(),
            Self::Processes => "processes\n".into(),
            Self::Stacks(pid) => format!("{STACKS_PREFIX}{pid}\n").into(),
        }
    }

    /// The command in `line`.
    pub fn from_line(line: &[u8]) -> Option<Self> {
        let line = str::from_utf8(line).ok()?;
        let pid = line.strip_prefix(STACKS_PREFIX).and_then(|rest| rest.trim_end().parse().ok());
        [Self::Status, Self::Reload, Self::Upgrade, Self::Stop, Self::Processes]
            .into_iter()
            .chain(pid.map(Self::Stacks))
            .find(|command| command.line() == line)
    }
}

/// Result of a reload or an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadResult {
    /// The new code serves. The text says what the reload could not change, if there is such a
    /// thing.
    Done(String),
    /// The old code keeps serving, for this reason in one line. A pool of an older build sends no
    /// reason.
    Failed(String),
}

impl ReloadResult {
    /// The line on the wire.
    pub fn line(&self) -> String {
        let (word, text) = match self {
            Self::Done(note) => (DONE, note),
            Self::Failed(reason) => (FAILED, reason),
        };
        let text = text.replace(char::is_control, " ");
        if text.is_empty() { format!("{word}\n") } else { format!("{word} {text}\n") }
    }

    /// The result in `answer`; `None` if the pool closed the connection without a result.
    pub fn from_answer(answer: &str) -> Option<Self> {
        let line = answer.strip_suffix('\n').unwrap_or(answer);
        let (word, text) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "" => None,
            DONE => Some(Self::Done(text.to_owned())),
            _ => Some(Self::Failed(text.to_owned())),
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
        for command in [
            ControlCommand::Status,
            ControlCommand::Reload,
            ControlCommand::Upgrade,
            ControlCommand::Stop,
            ControlCommand::Processes,
            ControlCommand::Stacks(4_194_304),
        ] {
            assert!(command.line().len() <= MAX_LINE_BYTES);
            assert_eq!(ControlCommand::from_line(command.line().as_bytes()), Some(command));
        }
        for wrong in [&b""[..], b"status", b"stop\n\n", b"\xff\n", b"stacks \n", b"stacks +1\n"] {
            assert_eq!(ControlCommand::from_line(wrong), None);
        }
        for text in ["", "W0301: why"].map(str::to_owned) {
            for result in [ReloadResult::Done(text.clone()), ReloadResult::Failed(text)] {
                assert_eq!(ReloadResult::from_answer(&result.line()), Some(result));
            }
        }
        let forged = ReloadResult::Failed("a\ndone".to_owned()).line();
        assert_eq!(forged, "failed a done\n");
        assert_eq!(ReloadResult::from_answer(""), None);
    }
}
