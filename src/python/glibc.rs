//! Compares the C library that the engine needs with the one of this system, to explain the dynamic
//! loader's message.

use std::{fmt, fs, path::Path};

/// A version of glibc, such as 2.17 or 2.2.5.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version(Vec<u32>);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

/// Which glibc `engine` needs, if the dynamic loader's message `reason` says that the one of this
/// system is older.
pub(super) fn needed(engine: impl FnOnce() -> Option<Vec<u8>>, reason: &str) -> Option<String> {
    let (library, _) = reason.split_once(": version `GLIBC_")?;
    let needed = highest(&engine()?)?;
    // The message may name another library of glibc, with fewer versions.
    let library = library.rsplit(' ').next().and_then(|path| Path::new(path).parent());
    let found = library.and_then(|directory| release(&fs::read(directory.join("libc.so.6")).ok()?));
    let found = found.map(|version| format!(", this system has {version}")).unwrap_or_default();
    Some(format!("it needs glibc {needed}{found}"))
}

/// The highest version of glibc that a program needs, by the names in its string tables.
fn highest(program: &[u8]) -> Option<Version> {
    after(program, b"GLIBC_").filter_map(|rest| version(rest, b"\0")).max()
}

/// The version of the glibc `libc`, by its own description: "stable release version 2.31." A
/// release need not define symbols with its version.
fn release(libc: &[u8]) -> Option<Version> {
    after(libc, b" release version ").find_map(|rest| version(rest, b".\n"))
}

/// What follows each `name` in `file`.
fn after<'a>(file: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let starts = file.windows(name.len()).enumerate().filter(move |(_, found)| *found == name);
    starts.map(|(at, _)| &file[at + name.len()..])
}

/// The version at the start of `text`, up to `end`. Other names, such as `PRIVATE`, are none.
fn version(text: &[u8], end: &[u8]) -> Option<Version> {
    let length = text.windows(end.len()).take(20).position(|found| found == end)?;
    let numbers = std::str::from_utf8(&text[..length]).ok()?.split('.');
    numbers.map(|number| number.parse().ok()).collect::<Option<Vec<u32>>>().map(Version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let table = b"\0libc.so.6\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.4\0GLIBC_PRIVATE\0GLIBC_9.9";
        assert_eq!(highest(table).unwrap().to_string(), "2.34");
        assert_eq!(highest(b"GLIBC_PRIVATE\0GLIBC_"), None);
        let libc = b"GLIBC_2.30\0GNU C Library (Debian) stable release version 2.31.\nCopyright";
        assert_eq!(release(libc).unwrap().to_string(), "2.31");
    }

    #[test]
    fn only_the_message_about_a_version_is_explained() {
        let table = || Some(b"GLIBC_2.34\0".to_vec());
        let message = "/nowhere/libc.so.6: version `GLIBC_2.34' not found (required by engine.so)";
        assert_eq!(needed(table, message).unwrap(), "it needs glibc 2.34");
        assert_eq!(needed(table, "engine.so: undefined symbol: PyList_New"), None);
    }
}
