//! The log message about a script that cannot be read, with a hint for the cause.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use diagnostics::message::{Code, LogMessage};
use rustix::process::geteuid;

use crate::{
    config::options::nearest::nearest,
    system::{closed_directory::first_closed, shell::quoted},
};

/// How many names of a directory are compared with a misspelt one.
const MAX_NAMES: usize = 1000;

/// The message that `script` cannot be read for `error`.
pub(crate) fn unreadable(script: &Path, error: &io::Error) -> LogMessage {
    let shown = script.display();
    if let Some(target) = missing_target(script) {
        let sentence =
            format!("`{shown}` is a link to `{}`, which does not exist", target.display());
        return LogMessage::new(Code::UnreadableScript, sentence)
            .hint(format!("let the link lead to the script: ln -sfn FILE {}", quoted(script)));
    }
    let user = geteuid().as_raw();
    let hint = match error.kind() {
        io::ErrorKind::NotFound => match first_missing(script) {
            Some((directory, name)) => {
                let near = near_name(&directory, &name)
                    .map(|near| format!("; did you mean `{near}`?"))
                    .unwrap_or_default();
                format!(
                    "correct the path: there is no `{}` in the directory `{}`{near}",
                    name.display(),
                    directory.display()
                )
            }
            None => "correct the path".to_owned(),
        },
        io::ErrorKind::PermissionDenied => match first_closed(script) {
            Some(closed) => {
                format!("let user {user} enter the directory: chmod a+x {}", closed.display())
            }
            None => format!("let user {user} read the script: chmod a+r {shown}"),
        },
        io::ErrorKind::InvalidData => format!("close the quote on the first line of `{shown}`"),
        io::ErrorKind::InvalidInput => "name a Python file that defines `application`".to_owned(),
        _ => format!("check `{shown}` and its file system"),
    };
    let sentence = format!("`{shown}` cannot be read: {error}");
    LogMessage::new(Code::UnreadableScript, sentence).hint(hint)
}

/// What `path` links to, if that does not exist.
fn missing_target(path: &Path) -> Option<PathBuf> {
    let is_missing = fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    fs::read_link(path).ok().filter(|_| is_missing)
}

/// The file or directory in `directory` whose name is most like `name`.
fn near_name(directory: &Path, name: &Path) -> Option<String> {
    let entries = fs::read_dir(directory).ok()?.take(MAX_NAMES).flatten();
    let names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    nearest(name.to_str()?, names.iter().map(String::as_str)).map(str::to_owned)
}

/// The last directory of `path` that exists, and the name that is missing in it.
fn first_missing(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut below = path;
    for directory in path.ancestors().skip(1) {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        if directory.is_dir() {
            return Some((directory.to_owned(), below.file_name()?.into()));
        }
        below = directory;
    }
    None
}
