//! What to do about source code in an encoding that Python does not read.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use pyo3::prelude::*;

use crate::advice::START;

/// The advice about `error` with the text `text`, which Python raised when it compiled a file, if
/// the file is likely to be UTF-16.
pub(super) fn advice(py: Python<'_>, error: &PyErr, text: &str) -> Option<String> {
    let is_mark = ["byte 0xff in position 0", "byte 0xfe in position 0"];
    if !text.contains("null bytes") && !is_mark.iter().any(|mark| text.contains(mark)) {
        return None;
    }
    let of_error = error.value(py).getattr("filename").and_then(|file| file.extract::<PathBuf>());
    let script = || START.get().and_then(|start| start.script()).map(Path::to_owned);
    let files = of_error.ok().into_iter().chain(script());
    Some(match files.into_iter().find(|file| is_utf_16(file)) {
        Some(file) => format!(
            "`{0}` is saved as UTF-16, and Python reads UTF-8: save it as UTF-8 in the editor, or \
             convert it: iconv -f UTF-16 -t UTF-8 {0}",
            file.display()
        ),
        None => "a source file is saved as UTF-16, or damaged: `file *.py` names the encodings; \
                 save it as UTF-8"
            .to_owned(),
    })
}

/// Has `file` the byte order mark of UTF-16?
fn is_utf_16(file: &Path) -> bool {
    let mut start = [0; 2];
    let is_read = File::open(file).and_then(|mut file| file.read_exact(&mut start)).is_ok();
    is_read && [[0xff, 0xfe], [0xfe, 0xff]].contains(&start)
}
