//! Why python could not be started, and what helps.

use std::io;

use diagnostics::message::{Code, LogMessage};
use rustix::{
    fs::{Access, access},
    io::Errno,
};

use crate::config::settings::Settings;

/// The log message for a python of `settings` that could not be started.
pub(crate) fn message(settings: &Settings, error: &io::Error) -> LogMessage {
    let program = settings.interpreter.program.display();
    let Reason { place, hint } = reason(settings, error);
    LogMessage::error(Code::NoProcess, format!("`{program}` could not be started: {place}{error}"))
        .hint(hint)
}

/// The same reason, where a message with another code has it. Gives the reason and the hint.
pub(crate) fn in_words(settings: &Settings, error: &io::Error) -> (String, String) {
    let Reason { place, hint } = reason(settings, error);
    (format!("{place}{error}"), hint)
}

struct Reason {
    /// What the error is about, if not the program itself.
    place: String,
    hint: String,
}

fn reason(settings: &Settings, error: &io::Error) -> Reason {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    let directory = &settings.working_directory;
    // The kernel does not say which of the two it is about.
    if matches!(
        errno,
        Some(Errno::NOENT | Errno::ACCESS | Errno::NOTDIR | Errno::LOOP | Errno::STALE)
    ) && access(directory, Access::EXEC_OK).is_err()
    {
        let directory = directory.display();
        return Reason {
            place: format!("its working directory `{directory}` cannot be entered: "),
            hint: "let this user enter that directory, or name another by `--chdir DIR`".to_owned(),
        };
    }
    let program = settings.interpreter.program.display();
    let hint = match errno {
        Some(Errno::TOOBIG) => {
            "the variables of the request are too large together: lower the web server's limits on \
             headers"
                .to_owned()
        }
        Some(Errno::AGAIN) => "a limit on processes is reached: raise the limit of this user \
            (`ulimit -u`) or that of its service (`TasksMax=`), or serve fewer requests at once"
            .to_owned(),
        Some(Errno::NOMEM) => {
            "memory is short: raise the limit (`ulimit -v`, `MemoryMax=`), or serve fewer requests \
             at once"
                .to_owned()
        }
        Some(Errno::MFILE) => "this process may open no more files: raise its limit (`ulimit -n`, \
            `LimitNOFILE=`)"
            .to_owned(),
        Some(Errno::FBIG) => FILE_SIZE.to_owned(),
        Some(Errno::NFILE) => "the whole system may open no more files: raise `fs.file-max`, or \
            look for the process that has most of them open"
            .to_owned(),
        Some(Errno::ACCESS | Errno::PERM) => format!(
            "let this user run `{program}`, and the interpreter that its `#!` line names; its file \
             system may be mounted with `noexec`"
        ),
        Some(Errno::NOENT) => {
            format!(
                "`{program}`, or the interpreter or loader that it needs, is missing: `file \
                 {program}` names that"
            )
        }
        Some(Errno::NOEXEC) => {
            format!("`{program}` is no program for this machine: see `file {program}`")
        }
        Some(Errno::TXTBSY) => {
            format!("`{program}` is just being written: try again when that is done")
        }
        _ => format!("see whether this user can run `{program} -c pass` from a shell"),
    };
    Reason { place: String::new(), hint }
}

/// What to do when a limit on file sizes keeps a process from starting.
pub(crate) fn limit_hint(error: &io::Error) -> Option<&'static str> {
    (error.raw_os_error() == Some(Errno::FBIG.raw_os_error())).then_some(FILE_SIZE)
}

const FILE_SIZE: &str =
    "files may not be large enough: raise the limit (`RLIMIT_FSIZE`, `ulimit -f`)";
