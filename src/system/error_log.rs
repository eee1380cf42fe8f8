//! The file of `--error-log` for processes without a supervisor: CGI requests, and a worker on
//! standard input.

use std::{
    env,
    ffi::OsStr,
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use diagnostics::message::{Code, LogMessage};
use rustix::{
    fs::{FileType, Mode, OFlags, fstat},
    io::Errno,
    stdio::dup2_stderr,
};
use wire::pool_logs::open_file_with;

/// The variables in which web servers name the directories that clients can fetch files from.
const DOCUMENT_ROOTS: [&str; 2] = ["DOCUMENT_ROOT", "CONTEXT_DOCUMENT_ROOT"];

/// Redirects standard error to the file at `path`. Returns the warning to log, if the file cannot
/// be opened or clients may be able to fetch it.
pub(crate) fn redirect_stderr(path: &Path) -> Option<LogMessage> {
    // The log may contain data of requests, and the other users of the machine are strangers.
    let owner_only = Mode::RUSR | Mode::WUSR;
    // Another user could put a link there, and have the messages in any file of this user.
    let is_shared = path.parent().is_some_and(is_shared);
    let links = if is_shared { OFlags::NOFOLLOW } else { OFlags::empty() };
    let opened = open_file_with(path.as_os_str().as_bytes(), links, owner_only)
        .and_then(|file| Ok((dup2_stderr(&file)?, file).1));
    match opened {
        // A log that has messages has this one, too.
        Ok(file) => is_empty(&file).then(|| document_root_of(path)).flatten().map(|root| {
            LogMessage::new(
                Code::ErrorLogExposed,
                format!(
                    "clients may be able to fetch the log `{}`: the web server shows files of `{}`",
                    path.display(),
                    root.display()
                ),
            )
            .hint("name a file in another directory with --error-log")
        }),
        Err(error) => {
            let shown = path.display();
            let is_link = is_shared && error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
            let (reason, hint) = if is_link {
                let reason = "it is a symbolic link, in a directory where every user may write";
                (reason.to_owned(), "name a file in a directory of your own with --error-log")
            } else {
                (error.to_string(), hint(&error))
            };
            let sentence = format!("cannot open the log `{shown}`: {reason}");
            Some(LogMessage::new(Code::ErrorLogNotOpened, sentence).hint(hint))
        }
    }
}

/// May every user create files in `directory`?
fn is_shared(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|found| found.mode() & 0o002 != 0)
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "create its directory",
        io::ErrorKind::PermissionDenied => {
            "let the user that the request runs as write the file, or omit --error-log"
        }
        _ => "name a regular file with --error-log",
    }
}

/// Is `file` a regular file without content?
fn is_empty(file: &OwnedFd) -> bool {
    fstat(file).is_ok_and(|found| {
        FileType::from_raw_mode(found.st_mode) == FileType::RegularFile && found.st_size == 0
    })
}

/// The directory of the web server that `path` is in.
fn document_root_of(path: &Path) -> Option<PathBuf> {
    let path = fs::canonicalize(path).ok()?;
    let roots = DOCUMENT_ROOTS.into_iter().filter_map(env::var_os);
    let roots = roots.filter(|root| Path::new(root) != Path::new("/") && root != OsStr::new(""));
    roots.filter_map(|root| fs::canonicalize(root).ok()).find(|root| path.starts_with(root))
}
