//! Waiting for processes and conditions: driven by what happens, bounded by a deadline.

use std::{
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

/// The limit of every wait: far longer than anything takes on a busy machine. Only a failure waits
/// so long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds, for what no descriptor announces.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    // A channel without messages: receiving is the pause between two looks.
    let (_sender, pause): (_, Receiver<()>) = channel();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited in vain until {what}");
        let _ = pause.recv_timeout(Duration::from_millis(10));
    }
}

/// Waits at most `limit` for the process to end; is it gone (or a zombie)?
pub(crate) fn exits_within(pid: i32, limit: Duration) -> bool {
    let Some(pid) = Pid::from_raw(pid) else { return true };
    // No such process: it has ended and was reaped.
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return true };
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    let ready = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).unwrap();
    ready > 0
}

/// Waits for the end of a process.
#[track_caller]
pub(crate) fn wait_for_exit(pid: i32) {
    assert!(exits_within(pid, DEADLINE), "process {pid} goes on");
}

/// Returns whether the process exists, running or not yet reaped.
pub(crate) fn exists(pid: i32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}
