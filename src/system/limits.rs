//! What this process may use: the limits of processes and memory, and what is left of them.

use std::fs;

use rustix::process::{Resource, getrlimit, getuid};

pub(crate) use crate::system::cgroups::Limit;
use crate::system::{
    cgroups::Cgroups,
    processes::{process_ids, status_field},
    trusted_path::is_real_root,
};

/// The limits of this process. Where several limit the same, the tightest one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Processes and threads.
    pub(crate) processes: Option<Limit>,
    /// Bytes of memory of all processes together.
    pub(crate) memory: Option<Limit>,
    /// Bytes of address space of each process (RLIMIT_AS).
    pub(crate) address_space: Option<u64>,
}

impl Limits {
    /// The limits and their use now.
    pub(crate) fn now() -> Self {
        let groups = Cgroups::of_this_process();
        let tightest = |limits: Vec<Limit>| limits.into_iter().min_by_key(Limit::left);
        let mut processes = groups.processes();
        processes.extend(nproc());
        Self {
            processes: tightest(processes),
            memory: tightest(groups.memory()),
            address_space: getrlimit(Resource::As).current,
        }
    }
}

/// The user's limit of processes. The kernel does not apply the limit to root.
fn nproc() -> Option<Limit> {
    let max = getrlimit(Resource::Nproc).current.filter(|_| !is_real_root())?;
    Some(Limit { name: "RLIMIT_NPROC", max, used: tasks_of_user() })
}

/// Number of processes and threads of this user, which RLIMIT_NPROC counts.
pub(crate) fn tasks_of_user() -> u64 {
    let user = getuid().as_raw();
    let tasks = |pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let owner: u32 = status_field(&status, "Uid")?;
        (owner == user).then(|| status_field::<u64>(&status, "Threads"))?
    };
    process_ids().filter_map(tasks).sum()
}
