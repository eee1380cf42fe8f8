//! The command line of this process: its arguments, and the title that replaces them in the output
//! of ps(1).

use std::{env, ffi::OsString, sync::OnceLock};

use process_title::ProcessTitle;

/// The arguments of this process, its name first. After [`show_title`], the standard library does
/// not know them any more.
pub(crate) fn arguments() -> &'static [OsString] {
    static ARGUMENTS: OnceLock<Vec<OsString>> = OnceLock::new();
    ARGUMENTS.get_or_init(|| env::args_os().collect())
}

/// Shows `title` in place of the arguments.
pub(crate) fn show_title(title: &str) {
    // The title overwrites them.
    arguments();
    if let Some(mut memory) = ProcessTitle::find() {
        memory.set(title);
    }
}
