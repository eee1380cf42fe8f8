//! Recognises scripts in encodings in which the kernel finds no `#!` line.

/// The encoding of a file that begins with `start`, for a person and for `iconv`, if its characters
/// have two or four bytes. The first characters of a script are of ASCII.
pub(super) fn other_encoding(start: &[u8]) -> Option<(&'static str, &'static str)> {
    match start {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => return Some(("UTF-32", "UTF-32")),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Some(("UTF-16", "UTF-16")),
        _ => {}
    }
    Some(match start.first_chunk::<4>()?.map(|byte| byte != 0) {
        [true, false, false, false] => ("UTF-32", "UTF-32LE"),
        [false, false, false, true] => ("UTF-32", "UTF-32BE"),
        [true, false, true, false] => ("UTF-16", "UTF-16LE"),
        [false, true, false, true] => ("UTF-16", "UTF-16BE"),
        _ => return None,
    })
}
