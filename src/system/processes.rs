//! Other processes, as proc(5) shows them: numbers, children, memory.

use std::{fs, str::FromStr};

/// The memory of a process in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProcessMemory {
    /// Its share: a page that several processes have in common is divided among them (PSS).
    pub(crate) share: u64,
    /// What the process alone has, and what its exit frees (USS).
    pub(crate) private: u64,
    /// What the process has in memory, pages in common with others included (RSS).
    pub(crate) resident: u64,
}

impl ProcessMemory {
    /// The memory of the process `pid`; `None` if the process has exited, belongs to another user,
    /// or the kernel is older than Linux 4.14.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
    }

    fn parse(rollup: &str) -> Option<Self> {
        let bytes = |name| status_field::<u64>(rollup, name).map(|kibibytes| kibibytes << 10);
        Some(Self {
            share: bytes("Pss")?,
            private: bytes("Private_Clean")? + bytes("Private_Dirty")?,
            resident: bytes("Rss")?,
        })
    }
}

/// The resident memory of the process `pid` in bytes, which any user may read.
pub(crate) fn resident_bytes(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status_field::<u64>(&status, "VmRSS").map(|kibibytes| kibibytes << 10)
}

/// Is the process `pid` stopped, by a signal or by a debugger?
pub(crate) fn is_stopped(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    matches!(status_field(&status, "State"), Some('T' | 't'))
}

/// The numbers of all processes that this process sees.
pub(crate) fn process_ids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The children of the main thread of the process `pid`.
pub(crate) fn children_of(pid: i32) -> Vec<i32> {
    // Not every kernel has this list.
    if let Ok(list) = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")) {
        return list.split_whitespace().filter_map(|child| child.parse().ok()).collect();
    }
    let parent = |child: i32| -> Option<i32> {
        status_field(&fs::read_to_string(format!("/proc/{child}/status")).ok()?, "PPid")
    };
    process_ids().filter(|&child| parent(child) == Some(pid)).collect()
}

/// The first number of the line `name:` in a file of proc(5).
pub(super) fn status_field<T: FromStr>(text: &str, name: &str) -> Option<T> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_process_is_read_by_name() {
        let text = "00400000-7fff00000000 ---p 00000000 00:00 0 [rollup]\n\
                    Rss:                9000 kB\n\
                    Pss:                4000 kB\n\
                    Pss_Dirty:          1500 kB\n\
                    Private_Clean:       200 kB\n\
                    Private_Dirty:      1300 kB\n";
        let expected =
            ProcessMemory { share: 4000 << 10, private: 1500 << 10, resident: 9000 << 10 };
        assert_eq!(ProcessMemory::parse(text), Some(expected));
        assert_eq!(ProcessMemory::parse(""), None);
    }
}
