//! Recognises scripts that the kernel runs with a wsgate.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::Path,
};

use crate::config::script_line;

/// Is `script` a file that the kernel runs with a wsgate?
pub(super) fn is_ready(script: &Path) -> bool {
    let is_executable = fs::symlink_metadata(script)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o100 != 0);
    if !is_executable {
        return false;
    }
    let start = script_line::beginning(script).unwrap_or_default();
    let line = start.strip_prefix(b"#!").unwrap_or_default().trim_ascii_start();
    let program = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    // The virtualenv of the program may have been moved.
    script_line::base_name(program).starts_with(b"wsgate")
        && Path::new(OsStr::from_bytes(program)).is_file()
}
