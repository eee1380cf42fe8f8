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

use pyo3::prelude::*;
use wire::check::{Sharing, SideEffect};

use crate::loading::import_audit::{
    descriptors::{
        Descriptors, {self},
    },
    trace::Origins,
};

/// How long an exiting thread or child process may take to disappear.
const END_TIMEOUT: Duration = Duration::from_millis(250);

/// Everything that is open or running.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProcessState {
    /// The kernel's name for the file behind each descriptor.
    pub(crate) descriptors: BTreeMap<i32, OsString>,
    pub(crate) threads: BTreeSet<i32>,
    /// Child processes that have not exited.
    pub(crate) children: BTreeSet<i32>,
    /// Child processes that have exited without being waited for (zombies).
    ended_children: BTreeSet<i32>,
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
        (self.children, self.ended_children) = children();
        self.mappings = Mappings::now();
    }

    /// Lists what is new since this snapshot and still exists. `origins` names the responsible code
    /// as far as known.
    pub(crate) fn remains(&self, py: Python<'_>, origins: &Origins) -> Vec<SideEffect> {
        let awaited = awaited_programs(py).unwrap_or_default();
        let now = Self::now();
        let mut remains = self.new_threads(&now, origins);
        let running =
            now.children.difference(&self.children).map(|child| (child, "is still running"));
        let ended = now
            .ended_children
            .difference(&self.ended_children)
            .filter(|child| awaited.contains(child));
        for (child, state) in
            running.chain(ended.map(|child| (child, "has ended and was not waited for")))
        {
            let name = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
            remains.push(SideEffect {
                what: format!("started the process `{}`, which {state}", name.trim_end()),
                is_threads: false,
                sharing: Sharing::EachProcess,
                origin: origins.children.get(child).cloned(),
            });
        }
        let all = Descriptors::new(py, &now.descriptors, &now.mappings);
        for (&number, name) in &now.descriptors {
            if self.descriptors.get(&number) != Some(name)
                && let Some((what, sharing)) = descriptors::judge(number, name, &all)
            {
                let origin = origins.descriptors.get(&(number, name.clone())).cloned();
                remains.push(SideEffect { what, is_threads: false, sharing, origin });
            }
        }
        let open: BTreeSet<&OsString> = now.descriptors.values().collect();
        for name in now
            .mappings
            .shared
            .difference(&self.mappings.shared)
            .filter(|name| !open.contains(name))
        {
            // A semaphore is a mere lock, made to be shared by forked processes.
            if !name.as_bytes().starts_with(b"/dev/shm/sem.") {
                remains.push(SideEffect {
                    what: format!("mapped shared memory, `{}`", name.to_string_lossy()),
                    is_threads: false,
                    sharing: Sharing::EachProcess,
                    origin: origins.mappings.get(name).cloned(),
                });
            }
        }
        remains
    }

    fn new_threads(&self, now: &Self, origins: &Origins) -> Vec<SideEffect> {
        let mut threads: Vec<(Option<_>, usize)> = Vec::new();
        for thread in now.threads.difference(&self.threads) {
            let origin = origins.threads.get(thread).cloned();
            match threads.iter_mut().find(|(known, _)| *known == origin) {
                Some((_, count)) => *count += 1,
                None => threads.push((origin, 1)),
            }
        }
        let remains = threads.into_iter().map(|(origin, count)| SideEffect {
            what: format!("started {count} thread{}", if count == 1 { "" } else { "s" }),
            is_threads: true,
            sharing: Sharing::EachProcess,
            origin,
        });
        remains.collect()
    }

    /// Waits briefly for exiting threads and child processes. Python counts a thread as joined
    /// before the kernel removes the thread.
    pub(crate) fn await_ends(&self) {
        let begin = Instant::now();
        let is_left = || {
            !threads().all(|thread| self.threads.contains(&thread))
                || children().0.difference(&self.children).next().is_some()
        };
        while is_left() && begin.elapsed() < END_TIMEOUT {
            thread::sleep(END_TIMEOUT / 250);
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

/// Programs that `subprocess` has not waited for, and whose exit status the application may still
/// query.
fn awaited_programs(py: Python<'_>) -> PyResult<BTreeSet<i32>> {
    let Ok(module) = py.import("sys")?.getattr("modules")?.get_item("subprocess") else {
        return Ok(BTreeSet::new());
    };
    // Waits for programs without a reference, as starting another program also does.
    let _ = module.call_method0("_cleanup");
    let class = module.getattr("Popen")?;
    let mut awaited = BTreeSet::new();
    for object in py.import("gc")?.call_method0("get_objects")?.try_iter()? {
        let object = object?;
        // Only the type is checked, since other objects may be incomplete.
        if object.get_type().is(&class)
            && object.getattr("returncode").is_ok_and(|status| status.is_none())
            && let Ok(pid) = object.getattr("pid").and_then(|pid| pid.extract())
        {
            awaited.insert(pid);
        }
    }
    Ok(awaited)
}

/// The numeric entries of a directory in /proc.
fn numbers(directory: &str) -> impl Iterator<Item = i32> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}
