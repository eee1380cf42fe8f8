//! Exit codes: all there are.

use std::process::ExitCode;

use diagnostics::message::LogMessage;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done; in CGI, a complete response was sent, even if it was an error page.
    Done,
    /// The thing asked for failed.
    Failed,
    /// The words of the command line are wrong.
    Usage,
    /// A defect of ours.
    Bug,
    /// The settings are wrong: a file, a virtualenv, an interpreter.
    Settings,
    /// A person has interrupted it (SIGINT).
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            // EX_SOFTWARE and EX_CONFIG of sysexits.h.
            Exit::Bug => 70,
            Exit::Settings => 78,
            // As a shell says it: 128 and the number of the signal.
            Exit::Interrupted => 130,
        })
    }
}

/// A command that could not do what was asked, for a reason to be told to whoever typed it.
#[derive(Debug)]
pub(crate) struct Complaint {
    /// How the program ends.
    pub(crate) exit: Exit,
    /// Why.
    pub(crate) entry: LogMessage,
}

impl Complaint {
    /// The words of the command line are wrong.
    pub(crate) fn usage(entry: LogMessage) -> Self {
        Self { exit: Exit::Usage, entry }
    }

    /// The settings are wrong.
    pub(crate) fn settings(entry: LogMessage) -> Self {
        Self { exit: Exit::Settings, entry }
    }

    /// The thing asked for failed.
    pub(crate) fn failed(entry: LogMessage) -> Self {
        Self { exit: Exit::Failed, entry }
    }
}
