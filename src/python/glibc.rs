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
pub(super) fn needed(engine: &[u8], reason: &str) -> Option<String> {
    let (library, _) = reason.split_once(": version `GLIBC_")?;
    let needed = highest(engine)?;
    // The message may name another library of glibc, with fewer versions.
    let library = library.rsplit(' ').next().and_then(|path| Path::new(path).parent());
    let found = library.and_then(|directory| highest(&fs::read(directory.join("libc.so.6")).ok()?));
    let found = found.map(|version| format!(", this system has {version}")).unwrap_or_default();
    Some(format!("it needs glibc {needed}{found}"))
}

/// The highest version of glibc in the string tables of an ELF file. A program names the versions
/// that it needs, and a library of glibc those that it has.
fn highest(file: &[u8]) -> Option<Version> {
    let prefix = b"GLIBC_";
    let starts = positions(file, prefix);
    starts.filter_map(|at| version(&file[at + prefix.len()..])).max()
}

/// The positions of `name` in `file`.
fn positions(file: &[u8], name: &[u8]) -> impl Iterator<Item = usize> {
    file.windows(name.len()).enumerate().filter(move |(_, found)| *found == name).map(|(at, _)| at)
}

/// The version at the start of `text`, up to a NUL byte. Other names, such as `PRIVATE`, are none.
fn version(text: &[u8]) -> Option<Version> {
    let end = text.iter().take(20).position(|&byte| byte == 0)?;
    let numbers = std::str::from_utf8(&text[..end]).ok()?.split('.');
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
    }

    #[test]
    fn only_the_message_about_a_version_is_explained() {
        let table = b"GLIBC_2.34\0";
        let message = "/nowhere/libc.so.6: version `GLIBC_2.34' not found (required by engine.so)";
        assert_eq!(needed(table, message).unwrap(), "it needs glibc 2.34");
        assert_eq!(needed(table, "engine.so: undefined symbol: PyList_New"), None);
    }
}
