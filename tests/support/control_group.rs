//! A control group of a test's own, with limits as a service manager sets them: `TasksMax`,
//! `MemoryMax` and `CPUQuota` of systemd.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::process::{Pid, Signal, geteuid, getpid, kill_process};

use crate::support::web_servers::eventually;

/// Microseconds in which a group may use its share of the processors.
const PERIOD: u64 = 100_000;

/// The limits of a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupLimits {
    pub(crate) processes: u64,
    pub(crate) bytes: u64,
    pub(crate) processors: u64,
}

/// A group, which is removed in the end with all its processes.
pub(crate) struct ControlGroup {
    /// The directory of each hierarchy: one in version 2, one for each controller in version 1.
    directories: Vec<PathBuf>,
}

impl ControlGroup {
    /// A group with these limits; nothing where the tests may not create one.
    pub(crate) fn new(limits: GroupLimits) -> Option<Self> {
        if !geteuid().is_root() {
            return None;
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wsgate-test-{}-{number}", getpid().as_raw_nonzero());
        let mut group = Self { directories: Vec::new() };
        let (period, quota) = (PERIOD, PERIOD * limits.processors);
        let files = [
            ("pids", "pids.max", "pids.max", limits.processes.to_string()),
            ("memory", "memory.max", "memory.limit_in_bytes", limits.bytes.to_string()),
            ("cpu", "cpu.max", "cpu.cfs_quota_us", quota.to_string()),
        ];
        for (controller, v2, v1, value) in files {
            let (directory, is_v1) = directory_of(controller)?;
            let directory = directory.join(&name);
            if !group.directories.contains(&directory) {
                fs::create_dir(&directory).ok()?;
                group.directories.push(directory.clone());
            }
            let value =
                if controller == "cpu" && !is_v1 { format!("{quota} {period}") } else { value };
            fs::write(directory.join(if is_v1 { v1 } else { v2 }), value).ok()?;
        }
        Some(group)
    }

    /// The arguments before a program that runs in this group.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let enter = self
            .directories
            .iter()
            .map(|directory| format!("echo $$ >'{}/cgroup.procs' && ", directory.display()))
            .collect::<String>();
        ["sh", "-c", &format!("{enter}exec \"$@\""), "sh"].map(str::to_owned).to_vec()
    }

    /// `command`, run in this group. Its streams are to be set again.
    pub(crate) fn command(&self, command: &Command) -> Command {
        let args = self.arguments();
        let mut inside = Command::new(&args[0]);
        inside.args(&args[1..]).arg(command.get_program()).args(command.get_args()).env_clear();
        inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(directory) = command.get_current_dir() {
            inside.current_dir(directory);
        }
        inside
    }

    /// Lets the group have so many processes and threads.
    #[track_caller]
    pub(crate) fn allow_processes(&self, count: u64) {
        let mut files = self.directories.iter().map(|directory| directory.join("pids.max"));
        let file = files.find(|file| file.exists()).unwrap();
        fs::write(file, count.to_string()).unwrap();
    }

    /// Processes and threads of the group.
    pub(crate) fn tasks(&self) -> u64 {
        let texts = self.directories.iter().map(|it| fs::read_to_string(it.join("pids.current")));
        let text = texts.filter_map(Result::ok).next();
        text.and_then(|text| text.trim().parse().ok()).unwrap_or_default()
    }

    /// Bytes of memory that the processes of the group use, without the cache of files.
    pub(crate) fn memory(&self) -> u64 {
        let texts = self.directories.iter().map(|it| fs::read_to_string(it.join("memory.stat")));
        let text = texts.filter_map(Result::ok).collect::<String>();
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        let found = lines.find(|(name, _)| ["anon", "total_rss"].contains(name));
        found.and_then(|(_, value)| value.parse().ok()).unwrap_or_default()
    }

    fn processes(&self) -> Vec<i32> {
        let lists = self.directories.iter().map(|it| fs::read_to_string(it.join("cgroup.procs")));
        let lists = lists.map(Result::unwrap_or_default).collect::<String>();
        lists.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // A group with processes cannot be removed.
        eventually("the group is empty", || {
            let processes = self.processes();
            for pid in processes.iter().filter_map(|&pid| Pid::from_raw(pid)) {
                let _ = kill_process(pid, Signal::KILL);
            }
            processes.is_empty()
        });
        for directory in &self.directories {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// The directory of the group of this process for a controller, and whether that is version 1.
fn directory_of(controller: &str) -> Option<(PathBuf, bool)> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group_of = |wanted: &str| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            controllers.split(',').any(|known| known == wanted).then_some(path.to_owned())
        })
    };
    let below = |mount: &Path, group: &str| mount.join(group.trim_start_matches('/'));
    let root = Path::new("/sys/fs/cgroup");
    match group_of(controller) {
        Some(group) => Some((below(&root.join(controller), &group), true)),
        None => {
            let directory = below(root, &group_of("")?);
            let offered = fs::read_to_string(directory.join("cgroup.subtree_control")).ok()?;
            offered
                .split_whitespace()
                .any(|known| known == controller)
                .then_some((directory, false))
        }
    }
}
