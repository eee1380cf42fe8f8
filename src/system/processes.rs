//! Other processes, as proc(5) shows them: numbers, children, memory.

use std::{fs, str::FromStr, time::Duration};

use control::process_state::StopCause;
use rustix::{
    param::{clock_ticks_per_second, page_size},
    time::{ClockId, clock_gettime},
};

use rustix::process::Pid;

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

/// Age of a process, and what it has used. Any user may read that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProcessUse {
    /// Time since the fork.
    pub(crate) age: Duration,
    /// Processor time, in user space and in the kernel.
    pub(crate) cpu: Duration,
    /// Resident memory in bytes.
    pub(crate) resident: u64,
    /// Is the process stopped, by a signal or a debugger?
    pub(crate) is_stopped: bool,
}

impl ProcessUse {
    /// What the process `pid` has used; `None` if the process has exited.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let boottime = clock_gettime(ClockId::Boottime);
        let uptime = Duration::from_secs(u64::try_from(boottime.tv_sec).ok()?);
        Self::parse(&stat, uptime, clock_ticks_per_second(), page_size() as u64)
    }

    fn parse(stat: &str, uptime: Duration, ticks: u64, page_size: u64) -> Option<Self> {
        // The name of the program, in parentheses, may contain spaces and parentheses.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_whitespace().collect();
        // The state, behind the name, is field 3 in proc(5).
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let time = |count: u64| {
            let milliseconds = count.saturating_mul(1000).checked_div(ticks).unwrap_or(0);
            Duration::from_millis(milliseconds)
        };
        Some(Self {
            age: uptime.saturating_sub(time(field(22)?)),
            cpu: time(field(14)?.saturating_add(field(15)?)),
            resident: field(24)?.saturating_mul(page_size),
            is_stopped: StopCause::in_stat(stat).is_some(),
        })
    }
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

/// Does the process `pid` run, as a child of `parent`? A number that another process has taken over
/// belongs to another parent.
pub(crate) fn is_running_child(pid: Pid, parent: Pid) -> bool {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let stat = fs::read_to_string(path).unwrap_or_default();
    let mut fields =
        stat.rsplit_once(") ").map(|(_, fields)| fields.split(' ')).into_iter().flatten();
    let runs = fields.next().is_some_and(|state| state != "Z" && state != "X");
    runs && fields.next().and_then(|id| id.parse().ok()) == Some(parent.as_raw_nonzero().get())
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
    fn age_processor_time_and_memory_are_read_behind_any_name() {
        let stat = "7 (a) R (b) S 1 7 7 0 -1 4194304 90 0 0 0 250 50 0 0 20 0 1 0 1000 9999 300 1";
        let expected = ProcessUse {
            age: Duration::from_secs(50),
            cpu: Duration::from_secs(3),
            resident: 300 * 4096,
            is_stopped: false,
        };
        let parsed = ProcessUse::parse(stat, Duration::from_secs(60), 100, 4096);
        assert_eq!(parsed, Some(expected));
        assert_eq!(ProcessUse::parse("7 (a) S 1", Duration::ZERO, 100, 4096), None);
        assert!(ProcessUse::of(1).is_some_and(|used| !used.age.is_zero()));
    }

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
