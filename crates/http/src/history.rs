//! Samples of a pool, for the curves of the page. Their number is limited.

use std::collections::VecDeque;

use control::pool_status::PoolStatus;

/// Maximum number of samples: ten minutes.
const MAX_SAMPLES: usize = 120;

/// Numbers of a pool at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Requests since the start of the pool.
    pub(crate) requests: u64,
    /// Threads that serve a request.
    pub(crate) busy: u64,
    /// Connections and requests that wait.
    pub(crate) waiting: u64,
    /// Resident memory of all workers in bytes.
    pub(crate) rss: u64,
}

impl Sample {
    /// The numbers in a status.
    pub(crate) fn of(status: &PoolStatus) -> Self {
        let accept_queues =
            status.listeners.iter().filter_map(|listener| listener.accept_queue).map(u64::from);
        Self {
            requests: status.requests,
            busy: status.busy as u64,
            waiting: accept_queues.fold(status.queued, u64::saturating_add),
            rss: resident_bytes(status),
        }
    }
}

/// The samples of the last minutes, the oldest first; `None` where the pool did not answer.
#[derive(Debug, Default)]
pub(crate) struct History(VecDeque<Option<Sample>>);

impl History {
    /// Adds the newest sample.
    pub(crate) fn push(&mut self, sample: Option<Sample>) {
        if self.0.len() == MAX_SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// One number of each sample.
    pub(crate) fn values(&self, number: impl Fn(&Sample) -> u64) -> Vec<Option<u64>> {
        self.0.iter().map(|sample| sample.as_ref().map(&number)).collect()
    }

    /// Requests between each sample and the one before.
    pub(crate) fn new_requests(&self) -> Vec<Option<u64>> {
        let requests = self.values(|sample| sample.requests);
        // A pool that was restarted counts from 0.
        requests.windows(2).map(|pair| Some(pair[1]?.saturating_sub(pair[0]?))).collect()
    }
}

/// Resident memory of all workers in bytes. The threads of one worker have the same memory.
pub(crate) fn resident_bytes(status: &PoolStatus) -> u64 {
    let mut pids: Vec<(i32, u64)> =
        status.workers.iter().map(|worker| (worker.pid, worker.rss)).collect();
    pids.sort_unstable();
    pids.dedup_by_key(|(pid, _)| *pid);
    pids.into_iter().map(|(_, rss)| rss).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(requests: u64) -> Option<Sample> {
        Some(Sample { requests, busy: 1, waiting: 0, rss: 0 })
    }

    #[test]
    fn the_number_of_samples_is_limited_and_gaps_stay_gaps() {
        let mut history = History::default();
        (0..1000).for_each(|number| history.push(sample(number * 2)));
        assert_eq!(history.values(|sample| sample.busy).len(), MAX_SAMPLES);
        assert_eq!(history.new_requests(), vec![Some(2); MAX_SAMPLES - 1]);
        history.push(None);
        history.push(sample(7));
        history.push(sample(3));
        assert_eq!(history.new_requests()[MAX_SAMPLES - 4..], [None, None, Some(0)]);
    }
}
