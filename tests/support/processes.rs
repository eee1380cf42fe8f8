//! Processes as the kernel describes them in `/proc`.

use std::{fs, path::Path};

use rustix::process::{Pid, Signal, kill_process};

/// Sends a signal to a process.
#[track_caller]
pub(crate) fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Children of a process that run.
pub(crate) fn children(parent: i32) -> Vec<i32> {
    let is_child = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        fields.next() != Some("Z") && fields.next() == Some(&parent.to_string())
    };
    pids().filter(is_child).collect()
}

/// The ids of all processes.
pub(crate) fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The number of entries in a directory of a process: of its descriptors, `fd`, or its threads,
/// `task`.
#[track_caller]
pub(crate) fn count(pid: i32, what: &str) -> usize {
    fs::read_dir(Path::new("/proc").join(pid.to_string()).join(what)).unwrap().count()
}

/// Memory of a process that is in use, in KiB.
#[track_caller]
pub(crate) fn resident(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The user ids and group ids of a process: real, effective, saved, and for files. Empty if the
/// process has exited.
pub(crate) fn user_and_group_ids(pid: i32) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    if status.contains("State:\tZ") {
        return Vec::new();
    }
    let lines = status.lines().filter(|line| line.starts_with("Uid:") || line.starts_with("Gid:"));
    lines
        .flat_map(|line| line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// A description of a process for a failure.
pub(crate) fn description(pid: i32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let state = status
        .lines()
        .find_map(|line| line.strip_prefix("State:"))
        .unwrap_or_default()
        .trim()
        .to_owned();
    let parent = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap_or_default()
        .trim()
        .to_owned();
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    format!("{pid} ({state}, child of {parent}: {})", command.chars().take(80).collect::<String>())
}

/// Children of a process, zombies included.
pub(crate) fn all_children(parent: i32) -> Vec<i32> {
    let listed =
        fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}
