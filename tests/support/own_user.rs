//! A user of a test's own: the kernel counts processes for each user, so a limit of processes means
//! something only for a user that no other test has.

use std::{
    fs::{
        Permissions, {self},
    },
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown},
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::process::{geteuid, getpid};

use crate::support::processes::{pids, user_and_group_ids};

/// Users that one process of tests may have.
const USERS: u32 = 256;

/// A user that has no process yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnUser(u32);

impl OwnUser {
    /// A user with no process; nothing where the tests may not become another user.
    pub(crate) fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !geteuid().is_root() {
            return None;
        }
        let first = 1_000_000 + getpid().as_raw_nonzero().get().unsigned_abs() * USERS;
        // An earlier process of tests with this number may have left processes.
        let has_process = |user: u32| {
            pids().any(|pid| user_and_group_ids(pid).first() == Some(&user.to_string()))
        };
        let mut users = std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed))
            .inspect(|&next| assert!(next < USERS, "a process of tests has {USERS} users"))
            .map(|next| first + next);
        users.find(|&user| !has_process(user)).map(Self)
    }

    /// Its number.
    pub(crate) fn id(self) -> u32 {
        self.0
    }

    /// Gives this user a directory with everything in it, and lets others enter.
    pub(crate) fn give(self, directory: &Path) {
        fs::create_dir_all(directory).unwrap();
        let mode = fs::metadata(directory).unwrap().mode();
        fs::set_permissions(directory, Permissions::from_mode(mode | 0o711)).unwrap();
        lchown(directory, Some(self.0), Some(self.0)).unwrap();
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.give(&path);
            } else {
                lchown(path, Some(self.0), Some(self.0)).unwrap();
            }
        }
    }

    /// The arguments before a program that runs as this user, which may have `processes` processes
    /// and threads, and raise the limit to 1000.
    pub(crate) fn limited_to(self, processes: usize) -> Vec<String> {
        let nproc = format!("--nproc={processes}:1000");
        [vec!["prlimit".to_owned(), nproc], self.arguments()].concat()
    }

    /// `command`, run as this user with a limit of processes. Its streams are to be set again.
    pub(crate) fn limit(self, command: &Command, processes: usize) -> Command {
        let args = self.limited_to(processes);
        let mut limited = Command::new(&args[0]);
        limited.args(&args[1..]).arg(command.get_program()).args(command.get_args()).env_clear();
        limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(directory) = command.get_current_dir() {
            limited.current_dir(directory);
        }
        limited
    }

    fn arguments(self) -> Vec<String> {
        let user = self.0.to_string();
        ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups", "--"]
            .map(str::to_owned)
            .to_vec()
    }
}

/// Lets a process have more processes and threads.
#[track_caller]
pub(crate) fn lift(pid: i32) {
    set_limit(pid, 1000);
}

/// Sets the number of processes and threads that the user of a process may have when that process
/// starts another. Its own user may do so where root lacks a capability.
#[track_caller]
pub(crate) fn set_limit(pid: i32, processes: usize) {
    let user = OwnUser(fs::metadata(format!("/proc/{pid}")).unwrap().uid());
    let args = user.arguments();
    let mut command = Command::new(&args[0]);
    let nproc = format!("--nproc={processes}:1000");
    command.args(&args[1..]).args(["prlimit", "--pid", &pid.to_string(), &nproc]);
    assert!(command.status().unwrap().success());
}
