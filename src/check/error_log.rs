//! A log of `--error-log` that could not be opened at requests: its messages would go to the log of
//! the web server, which the owner of the script may not be able to read.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use crate::check::{
    quoted,
    reader::{Need, Reader},
    report::Report,
};

/// Warns if `reader` could not open `log`.
pub(super) fn inspect(report: &mut Report, log: &Path, reader: Option<&Reader>) {
    if let Some((reason, hint)) = obstacle(log, reader) {
        report.warning(format!(
            "the log of --error-log, `{}`, cannot be opened: {reason}\nhint: {hint}",
            log.display()
        ));
    }
}

/// Why `reader` could not open `log`, and what to do.
fn obstacle(log: &Path, reader: Option<&Reader>) -> Option<(String, String)> {
    let directory = log.parent().unwrap_or(Path::new("/"));
    let shown = directory.display();
    match fs::metadata(directory) {
        Ok(found) if found.is_dir() => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let hint = format!("mkdir -p {}", quoted(directory));
            return Some((format!("there is no directory `{shown}`"), hint));
        }
        // This user may see less than the reader.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return None,
        _ => {
            let hint = "name a file in a directory with --error-log".to_owned();
            return Some((format!("`{shown}` is not a directory"), hint));
        }
    }
    let found = fs::metadata(log);
    if found.as_ref().is_ok_and(fs::Metadata::is_dir) {
        let hint = "name a file with --error-log".to_owned();
        return Some(("it is a directory".to_owned(), hint));
    }
    let reader = reader?;
    let refusing: PathBuf = match reader.first_unusable(directory, Need::Execute) {
        Some((path, _)) => path,
        None if found.is_ok() => log.to_owned(),
        None => directory.to_owned(),
    };
    if reader.may_write(&refusing) {
        return None;
    }
    let name = &reader.name;
    let hint = if reader.owns(&refusing) {
        let mode = if refusing.is_dir() { "u+wx" } else { "u+w" };
        format!("chmod {mode} {}", quoted(&refusing))
    } else {
        format!("let user {name} write there, or remove --error-log")
    };
    Some((format!("user {name} may not write to `{}`", refusing.display()), hint))
}
