//! Why python could not be started, and the hint for it.

use std::io;

use diagnostics::{
    limit_hints,
    message::{Code, LogMessage},
};
use rustix::{
    fs::{Access, access},
    io::Errno,
};

use crate::{
    config::settings::Settings,
    system::limits::{Limit, Limits},
};

/// The log message about a python that could not be started.
pub(crate) fn message(settings: &Settings, error: &io::Error) -> LogMessage {
    let program = settings.interpreter.program.display();
    let Reason { subject, hint } = reason(settings, error);
    LogMessage::new(Code::NoProcess, format!("`{program}` could not be started: {subject}{error}"))
        .hint(hint)
}

/// The reason and the hint, for a log message with another code.
pub(crate) fn reason_and_hint(settings: &Settings, error: &io::Error) -> (String, String) {
    let Reason { subject, hint } = reason(settings, error);
    (format!("{subject}{error}"), hint)
}

struct Reason {
    /// The subject of the error, if that is not the program itself.
    subject: String,
    hint: String,
}

fn reason(settings: &Settings, error: &io::Error) -> Reason {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    let directory = &settings.working_directory;
    // The error of the kernel may be about the program or its working directory.
    if matches!(
        errno,
        Some(Errno::NOENT | Errno::ACCESS | Errno::NOTDIR | Errno::LOOP | Errno::STALE)
    ) && access(directory, Access::EXEC_OK).is_err()
    {
        let directory = directory.display();
        return Reason {
            subject: format!("its working directory `{directory}` cannot be entered: "),
            hint: "let this user enter the directory, or use another with `--chdir DIR`".to_owned(),
        };
    }
    let program = settings.interpreter.program.display();
    if let Some(hint) = limit_hint(error) {
        return Reason { subject: String::new(), hint };
    }
    let hint = match errno {
        Some(Errno::TOOBIG) => {
            "the variables of the request are too large: lower the limits of the web server on \
             headers"
                .to_owned()
        }
        Some(Errno::MFILE) => "the limit of open files is reached: raise it (`ulimit -n`, \
            `LimitNOFILE=`)"
            .to_owned(),
        Some(Errno::FBIG) => FILE_SIZE_HINT.to_owned(),
        Some(Errno::NFILE) => "the limit of open files of the system is reached: raise \
            `fs.file-max`, or look for the process with the most open files"
            .to_owned(),
        Some(Errno::ACCESS | Errno::PERM) => format!(
            "let this user run `{program}` and the interpreter on its `#!` line; its file system \
             may be mounted with `noexec`"
        ),
        Some(Errno::NOENT) => {
            format!("`{program}`, or its interpreter or loader, is missing: see `file {program}`")
        }
        Some(Errno::NOEXEC) => {
            format!("`{program}` is not a program for this machine: see `file {program}`")
        }
        Some(Errno::TXTBSY) => {
            format!("`{program}` is being written: try again when it is complete")
        }
        _ => format!("check whether this user can run `{program} -c pass` in a shell"),
    };
    Reason { subject: String::new(), hint }
}

/// The hint for an error of the limits of processes or memory.
pub(crate) fn limit_hint(error: &io::Error) -> Option<String> {
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    if is(Errno::AGAIN) {
        // The limit that is reached, of those of the user and of the control groups.
        let limit = Limits::now().processes.filter(|limit| limit.left() == 0);
        Some(limit_hints::processes(limit.map(|Limit { name, max, used }| {
            format!("{name}: {used} of {max} processes and threads are in use")
        })))
    } else if is(Errno::NOMEM) {
        Some(limit_hints::memory())
    } else {
        None
    }
}

/// The hint for an error of the limit of file sizes.
pub(crate) fn file_size_hint(error: &io::Error) -> Option<&'static str> {
    (error.raw_os_error() == Some(Errno::FBIG.raw_os_error())).then_some(FILE_SIZE_HINT)
}

const FILE_SIZE_HINT: &str = "raise the limit of file sizes (`RLIMIT_FSIZE`, `ulimit -f`)";
