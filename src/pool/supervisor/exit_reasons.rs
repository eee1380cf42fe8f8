//! Why workers have exited that were not asked to stop.

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

use rustix::process::{Pid, Signal};
use wire::launch::Service;

use crate::pool::supervisor::action::ReplaceReason;

/// What is known about the exits of workers.
pub(super) struct ExitReasons {
    /// Gateways kill their workers when web servers end requests.
    is_warm: bool,
    /// Workers exit after a number of requests.
    has_max_requests: bool,
    /// Workers that are killed since a request did not end after its timeout.
    timed_out: Vec<Pid>,
}

impl ExitReasons {
    /// No exits yet of workers that do `service`.
    pub(super) fn new(service: &Service) -> Self {
        let has_max_requests = service.max_requests > 0;
        Self { is_warm: service.warm, has_max_requests, timed_out: Vec::new() }
    }

    /// Workers do `service` from now on.
    pub(super) fn set_service(&mut self, service: &Service) {
        self.has_max_requests = service.max_requests > 0;
    }

    /// Records that a worker is killed since a request did not end after its timeout.
    pub(super) fn note_timeout(&mut self, pid: Pid) {
        if !self.timed_out.contains(&pid) {
            self.timed_out.push(pid);
        }
    }

    /// Was the worker that has exited killed for a timeout?
    pub(super) fn take_timed_out(&mut self, pid: Pid) -> bool {
        let position = self.timed_out.iter().position(|killed| *killed == pid);
        position.is_some_and(|position| self.timed_out.swap_remove(position) == pid)
    }

    /// Why a worker has to be replaced. `None` if it has served its only request, or its client has
    /// disconnected.
    pub(super) fn of(
        &self,
        status: ExitStatus,
        is_orderly: bool,
        timed_out: bool,
    ) -> Option<ReplaceReason> {
        let is_killed = status.signal() == Some(Signal::KILL.as_raw());
        match is_orderly {
            _ if timed_out => Some(ReplaceReason::Timeout),
            true if self.has_max_requests => Some(ReplaceReason::MaxRequests),
            true => (!self.is_warm).then_some(ReplaceReason::Exit),
            false => (!self.is_warm || !is_killed).then_some(ReplaceReason::Crash),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_an_exit_depends_on_status_mode_and_limits() {
        let reasons = |is_warm, has_max_requests| ExitReasons {
            is_warm,
            has_max_requests,
            timed_out: Vec::new(),
        };
        let [success, killed] = [0, 9].map(ExitStatus::from_raw);
        use ReplaceReason::{Crash, Exit, MaxRequests, Timeout};
        for (is_warm, has_max_requests, status, is_orderly, timed_out, expected) in [
            (false, false, success, true, false, Some(Exit)),
            (false, true, success, true, false, Some(MaxRequests)),
            (true, false, success, true, false, None),
            (false, false, success, false, false, Some(Crash)),
            (false, false, killed, false, false, Some(Crash)),
            (true, false, killed, false, false, None),
            (false, true, killed, false, true, Some(Timeout)),
        ] {
            let reasons = reasons(is_warm, has_max_requests);
            assert_eq!(reasons.of(status, is_orderly, timed_out), expected);
        }
    }

    #[test]
    fn a_worker_is_killed_for_a_timeout_once() {
        let mut reasons =
            ExitReasons { is_warm: false, has_max_requests: false, timed_out: Vec::new() };
        let pid = Pid::from_raw(7).unwrap();
        (0..2).for_each(|_| reasons.note_timeout(pid));
        assert!(reasons.take_timed_out(pid) && !reasons.take_timed_out(pid));
    }
}
