//! Exit codes of the program, and the errors and the output of commands.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use diagnostics::message::{Code, LogMessage};

/// The exit code of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command succeeded; in CGI, a complete response was sent, even an error page.
    Success,
    /// The command failed.
    Failure,
    /// The arguments are wrong.
    Usage,
    /// A defect of wsgate.
    Bug,
    /// The settings are wrong: a file, a virtualenv, an interpreter.
    Settings,
    /// SIGINT interrupted the command.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            // EX_SOFTWARE and EX_CONFIG of sysexits.h.
            Exit::Bug => 70,
            Exit::Settings => 78,
            // As shells report it: 128 and the number of the signal.
            Exit::Interrupted => 130,
        })
    }
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct CommandError {
    /// The exit code of the program.
    pub(crate) exit: Exit,
    /// The log message for the person who started the command.
    pub(crate) message: LogMessage,
}

impl CommandError {
    /// The arguments are wrong.
    pub(crate) fn usage(message: LogMessage) -> Self {
        Self { exit: Exit::Usage, message }
    }

    /// The settings are wrong.
    pub(crate) fn settings(message: LogMessage) -> Self {
        Self { exit: Exit::Settings, message }
    }

    /// The command failed.
    pub(crate) fn failed(message: LogMessage) -> Self {
        Self { exit: Exit::Failure, message }
    }
}

/// Writes the result of a command to standard output. A closed pipe is no error: nobody reads the
/// rest.
///
/// # Errors
/// If standard output cannot be written, such as on a full disk.
pub(crate) fn print(text: &[u8]) -> Result<Exit, CommandError> {
    let mut output = io::stdout().lock();
    match output.write_all(text).and_then(|()| output.flush()) {
        Ok(()) => Ok(Exit::Success),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Success),
        Err(error) => Err(CommandError::failed(
            LogMessage::new(
                Code::NotWritten,
                format!("standard output cannot be written: {error}"),
            )
            .hint("check what standard output is connected to"),
        )),
    }
}
