//! A snapshot of what a process has open and running, read from /proc.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

/// How long an exiting thread or child process may take to disappear.
const EXIT_TIMEOUT: Duration = Duration::from_millis(250);

/// Everything that is open or running.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProcessState {
    /// The kernel's name for the file behind each descriptor.
    pub(crate) descriptors: BTreeMap<i32, OsString>,
    pub(crate) threads: BTreeSet<i32>,
    /// Child processes that have not exited.
    pub(crate) children: BTreeSet<i32>,
    /// Child processes that have exited without being waited for (zombies).
    pub(crate) exited_children: BTreeSet<i32>,
    pub(crate) mappings: Mappings,
}

/// Memory mappings of files, and mappings that other processes may share, by the kernel's names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mappings {
    /// Mappings whose changes other processes see.
    pub(crate) shared: BTreeSet<OsString>,
    /// All other mappings.
    pub(crate) private: BTreeSet<OsString>,
}

impl ProcessState {
    /// Takes a complete snapshot.
    pub(crate) fn now() -> Self {
        let mut now = Self::of_descriptors_and_threads();
        now.look_at_children_and_mappings();
        now
    }

    /// Takes a cheaper snapshot, of descriptors and threads only.
    pub(crate) fn of_descriptors_and_threads() -> Self {
        // The descriptor that reads this directory is listed, too.
        let own = PathBuf::from(format!("/proc/{}/fd", std::process::id()));
        let descriptors = numbers("/proc/self/fd")
            .filter_map(|number| {
                Some((number, fs::read_link(format!("/proc/self/fd/{number}")).ok()?))
            })
            .filter(|(_, name)| *name != own)
            .map(|(number, name)| (number, name.into_os_string()));
        Self { descriptors: descriptors.collect(), threads: threads().collect(), ..Self::default() }
    }

    /// Completes a snapshot of [`ProcessState::of_descriptors_and_threads`].
    pub(crate) fn look_at_children_and_mappings(&mut self) {
        (self.children, self.exited_children) = children();
        self.mappings = Mappings::now();
    }

    /// Waits briefly for exiting threads and child processes. Python counts a thread as joined
    /// before the kernel removes the thread.
    pub(crate) fn await_exits(&self) {
        let begin = Instant::now();
        let is_left = || {
            !threads().all(|thread| self.threads.contains(&thread))
                || children().0.difference(&self.children).next().is_some()
        };
        while is_left() && begin.elapsed() < EXIT_TIMEOUT {
            thread::sleep(EXIT_TIMEOUT / 250);
        }
    }
}

impl Mappings {
    /// The present mappings of this process.
    pub(crate) fn now() -> Self {
        let mut mappings = Self::default();
        // Paths need not be UTF-8.
        let lines = fs::read("/proc/self/maps").unwrap_or_default();
        for line in lines.split(|&byte| byte == b'\n') {
            let mut fields = line.splitn(6, |&byte| byte == b' ');
            let (Some(rights), Some(name)) = (fields.nth(1), fields.nth(3)) else {
                continue;
            };
            let name = OsStr::from_bytes(name.trim_ascii_start());
            let names = match rights {
                [_, b'w', _, b's'] => &mut mappings.shared,
                _ => &mut mappings.private,
            };
            if !name.is_empty() && !names.contains(name) {
                names.insert(name.to_owned());
            }
        }
        mappings
    }
}

fn threads() -> impl Iterator<Item = i32> {
    numbers("/proc/self/task")
}

/// The child processes of all threads: first those running, then those that exited without being
/// waited for.
fn children() -> (BTreeSet<i32>, BTreeSet<i32>) {
    let lists = threads()
        .filter_map(|thread| fs::read_to_string(format!("/proc/self/task/{thread}/children")).ok());
    let all: Vec<i32> = lists
        .flat_map(|list| list.split(' ').filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect();
    let runs = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
    };
    all.into_iter().partition(runs)
}

/// The numeric entries of a directory in /proc.
fn numbers(directory: &str) -> impl Iterator<Item = i32> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}
