//! Writes all files or none, and never over another file.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use diagnostics::message::{Code, LogMessage};
use rustix::process::geteuid;

use crate::{
    exit::CommandError,
    init::{quoted, this_program},
};

/// A file to be written.
pub(super) struct PlannedFile {
    path: PathBuf,
    content: String,
    mode: u32,
    has_other_lines: bool,
}

impl PlannedFile {
    pub(super) fn new(path: &Path, content: &str, mode: u32) -> Self {
        Self { path: path.to_owned(), content: content.to_owned(), mode, has_other_lines: false }
    }

    /// The file for `--dry-run`.
    pub(super) fn shown(&self) -> String {
        let state = match fs::symlink_metadata(&self.path) {
            Err(_) => "would write",
            Ok(_) if self.is_written() => "already has",
            Ok(_) => "another file is at",
        };
        format!(
            "{state} {} (mode {:o}):\n{}\n",
            self.path.display(),
            self.mode,
            self.content.trim_end()
        )
    }

    /// Allows other lines before and behind the content, such as those of a control panel.
    pub(super) fn with_other_lines(mut self) -> Self {
        self.has_other_lines = true;
        self
    }

    /// A line of the content by which files of an earlier `wsgate init` are recognised.
    fn marker(&self) -> Option<&str> {
        let is_marked = self.has_other_lines || self.content.starts_with("#!");
        self.content.lines().find(|line| !line.starts_with("#!")).filter(|_| is_marked)
    }

    /// Does the file exist with this content?
    fn is_written(&self) -> bool {
        let content = self.content.trim_end();
        fs::symlink_metadata(&self.path).is_ok_and(|found| found.is_file())
            && fs::read(&self.path).is_ok_and(|found| {
                found == self.content.as_bytes()
                    || self.has_other_lines && has_lines(&found, content)
            })
    }
}

/// Files and directories that were created, and that are removed again unless all were.
pub(super) struct Transaction {
    /// The command that a person runs again.
    again: String,
    files: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

impl Transaction {
    /// Nothing was created yet. `again` is the command that a person runs again.
    pub(super) fn new(again: String) -> Self {
        Self { again, files: Vec::new(), directories: Vec::new() }
    }

    /// Creates the directory `path`. Returns a line about it.
    ///
    /// # Errors
    /// If the directory cannot be created.
    pub(super) fn create_directory(
        &mut self,
        path: &Path,
        mode: u32,
    ) -> Result<String, CommandError> {
        DirBuilder::new().mode(mode).create(path).map_err(|error| not_written(path, &error))?;
        self.directories.push(path.to_owned());
        // The umask does not count: suexec refuses directories that a group can write in.
        fs::set_permissions(path, Permissions::from_mode(mode))
            .map_err(|error| not_written(path, &error))?;
        Ok(format!("created {}/ (mode {mode:o})\n", path.display()))
    }

    /// Creates the link `path` to `target`. Returns a line about it.
    ///
    /// # Errors
    /// If something else has that name.
    pub(super) fn link(&mut self, path: &Path, target: &Path) -> Result<String, CommandError> {
        if fs::read_link(path).is_ok_and(|found| found == target) {
            return Ok(format!("kept {}\n", path.display()));
        }
        symlink(target, path).map_err(|error| match fs::read_link(path) {
            Ok(other) => self.other_link((path, target), &other),
            Err(_) => not_written(path, &error),
        })?;
        self.files.push(path.to_owned());
        Ok(format!("linked {} to {}\n", path.display(), target.display()))
    }

    /// Writes `file`. Returns a line about it.
    ///
    /// # Errors
    /// If another file has that name, or the file cannot be written.
    pub(super) fn write(&mut self, file: &PlannedFile) -> Result<String, CommandError> {
        let PlannedFile { path, content, mode, .. } = file;
        if file.is_written() {
            return Ok(format!("kept {}, which has this content already\n", path.display()));
        }
        if fs::symlink_metadata(path).is_ok() {
            return Err(self.exists(file));
        }
        let write = || -> io::Result<()> {
            let directory = path.parent().unwrap_or(Path::new("/"));
            let draft = tempfile::Builder::new().prefix(".wsgate-").tempfile_in(directory);
            // Errors of the draft itself have its name, which nobody knows.
            let draft = draft.map_err(|error| io::Error::from(error.kind()))?;
            draft.as_file().write_all(content.as_bytes())?;
            draft.as_file().set_permissions(Permissions::from_mode(*mode))?;
            // The file system may report a full disk only now.
            draft.as_file().sync_all()?;
            draft.persist_noclobber(path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => self.exists(file),
            _ => not_written(path, &error),
        })?;
        self.files.push(path.clone());
        Ok(format!("wrote {} (mode {mode:o})\n", path.display()))
    }

    /// The error about a file that stands where `file` should be written.
    fn exists(&self, file: &PlannedFile) -> CommandError {
        let path = &file.path;
        let text = fs::read_to_string(path).unwrap_or_default();
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let is_own = text.lines().any(|line| file.marker().is_some_and(|own| own == line));
        let what = match fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() => "a symbolic link",
            Ok(found) if found.is_dir() => "a directory",
            _ if is_own => "an earlier `wsgate init` wrote it, or lines of it",
            _ => "another file",
        };
        let (shown, again) = (quoted(path), &self.again);
        let hint = if is_own && file.has_other_lines {
            format!(
                "replace it: mv {shown} {0} && {again}; then copy lines of your own from {0}",
                quoted(&path.with_extension("old"))
            )
        } else if is_own && has_same_code(&text, &file.content) {
            format!("replace it: rm {shown} && {again}")
        } else if is_own {
            format!(
                "it serves another application. To replace it: rm {shown} && {again}; to keep it: \
                 {} check {shown} says whether its first line needs a change",
                this_program()
            )
        } else if file.has_other_lines {
            "append the lines that --dry-run shows behind it, and run `wsgate init` again"
                .to_owned()
        } else {
            "rename it and run the command again; or run the command with --dry-run, and add the \
             lines that it shows by hand"
                .to_owned()
        };
        let message = LogMessage::new(
            Code::BadSetting,
            format!("`{}` exists: {what}, and nothing was written", path.display()),
        )
        .hint(hint);
        CommandError::failed(if first.is_empty() {
            message
        } else {
            message.detail(format!("its first line: {first}"))
        })
    }

    /// The error about a link at `path` to `other` instead of `target`.
    fn other_link(&self, (path, target): (&Path, &Path), other: &Path) -> CommandError {
        let message = LogMessage::new(
            Code::BadSetting,
            format!(
                "`{}` is a link to `{}`, not to this wsgate, and nothing was written",
                path.display(),
                other.display()
            ),
        );
        CommandError::failed(message.hint(format!(
            "replace the link: ln -sfn {} {} && {}",
            quoted(target),
            quoted(path),
            self.again
        )))
    }

    /// Keeps everything that was created.
    pub(super) fn keep(mut self) {
        self.files.clear();
        self.directories.clear();
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // The error of the command says why. A directory that has other files stays.
        self.files.iter().rev().for_each(|file| drop(fs::remove_file(file)));
        self.directories.iter().rev().for_each(|directory| drop(fs::remove_dir(directory)));
    }
}

/// Has `text` the lines of `block`, one behind the other?
fn has_lines(text: &[u8], block: &str) -> bool {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let block: Vec<&str> = block.lines().collect();
    lines.windows(block.len().max(1)).any(|window| window == block)
}

/// Have two scripts the same lines but for their first?
fn has_same_code(one: &str, other: &str) -> bool {
    one.trim_end().lines().skip(1).eq(other.trim_end().lines().skip(1))
}

fn not_written(path: &Path, error: &io::Error) -> CommandError {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let is_own = fs::metadata(directory).is_ok_and(|found| {
        found.uid() == geteuid().as_raw() && found.permissions().mode() & 0o200 == 0
    });
    let writable = format!("chmod u+w {}", quoted(directory));
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied if is_own => writable.as_str(),
        io::ErrorKind::PermissionDenied => "run the command as the owner of the directory",
        io::ErrorKind::NotFound => "create the directory above it first",
        io::ErrorKind::AlreadyExists => "rename it, and run the command again",
        _ => "check the file system: free space, quota, whether it is mounted read-only",
    };
    CommandError::failed(
        LogMessage::new(
            Code::BadSetting,
            format!("`{}` cannot be written: {error}; nothing was written", path.display()),
        )
        .hint(hint),
    )
}
