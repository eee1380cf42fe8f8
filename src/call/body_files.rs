//! The files that a request is made of.

use std::{
    ffi::OsStr,
    fs::{
        File, {self},
    },
    io,
    os::unix::fs::FileTypeExt as _,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags, fcntl_setfl, open as open_file},
};

/// The context of an error about a file: the arguments may be right.
#[derive(Debug)]
pub(super) struct UnusableFile {
    sentence: &'static str,
    /// What to do.
    pub(super) hint: &'static str,
}

impl UnusableFile {
    /// The context of an error about a file behind `@`.
    pub(super) fn after_at(sentence: &'static str) -> Self {
        Self { sentence, hint: "check the path after `@`, and the permissions of the file" }
    }

    /// The context of an error about a file of the request body.
    pub(super) fn of_body() -> Self {
        Self {
            sentence: "the request body cannot be read",
            hint: "check the path after `@`, or after `<` of -F, and the permissions of the file",
        }
    }

    /// The context of an error about a file that is read with `-b`.
    pub(super) fn of_cookies() -> Self {
        Self {
            sentence: "the cookies cannot be read",
            hint: "write cookies as `-b NAME=VALUE`, or check the path after `-b` and the \
                   permissions of the file",
        }
    }

    /// The context of an error about the file of `-c`.
    pub(super) fn of_cookie_jar() -> Self {
        Self {
            sentence: "the cookies cannot be kept",
            hint: "name a file with -c whose directory exists, where this user may write, on a \
                   disk with space",
        }
    }
}

impl std::fmt::Display for UnusableFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.sentence)
    }
}

/// An unlinked file for a request body.
pub(super) fn temporary() -> Result<File> {
    tempfile::tempfile().context("a temporary file for the request body")
}

/// The file at `path`, or standard input for `-`.
pub(super) fn source(path: &OsStr, timeout_secs: u64) -> Result<File> {
    ensure!(!path.is_empty(), NoFile);
    if path == "-" {
        let stdin = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3).context("standard input")?;
        return Ok(stdin.into());
    }
    open(Path::new(path), timeout_secs)
}

/// A value `@` without the name of a file.
#[derive(Debug)]
pub(super) struct NoFile;

impl std::fmt::Display for NoFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("`@` names no file")
    }
}

impl std::error::Error for NoFile {}

/// `file`, or a copy of it if it is a pipe or device, whose length is known only at the end.
pub(super) fn regular(mut file: File) -> Result<File> {
    let found = file.metadata()?;
    if found.is_dir() {
        bail!("it is a directory");
    }
    if found.is_file() {
        return Ok(file);
    }
    let mut copy = temporary()?;
    io::copy(&mut file, &mut copy)?;
    Ok(copy)
}

/// Opens a file with a request body. Waits `timeout_secs` for the writer of a named pipe; 0 is no
/// limit.
fn open(path: &Path, timeout_secs: u64) -> Result<File> {
    let cannot = || format!("the file `{}` cannot be opened", path.display());
    let is_fifo = fs::metadata(path).with_context(cannot)?.file_type().is_fifo();
    if !is_fifo {
        return File::open(path).with_context(cannot);
    }
    // Without NONBLOCK, opening a named pipe waits for a writer.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let pipe = open_file(path, flags, Mode::empty()).with_context(cannot)?;
    let limit = Timespec::try_from(Duration::from_secs(timeout_secs)).ok();
    let limit = limit.filter(|_| timeout_secs > 0);
    if poll(&mut [PollFd::new(&pipe, PollFlags::IN)], limit.as_ref())? == 0 {
        bail!("no process has written to the named pipe `{}` for {timeout_secs} s", path.display());
    }
    fcntl_setfl(&pipe, OFlags::empty())?;
    Ok(pipe.into())
}
