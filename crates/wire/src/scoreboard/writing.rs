//! Changes to a line of the scoreboard. Each has an odd version before it and an even one after it.

use std::{
    ops::AddAssign,
    sync::atomic::{AtomicU64, Ordering, fence},
};

use crate::{
    clock::{now, recently},
    scoreboard::{
        STATUS_CLASSES, ScoreboardLine,
        state::{BUSY, IDLE, LEAVING, MISSING},
    },
};

/// What a thread has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadCounts {
    /// Requests, the present one included.
    pub served: u64,
    /// Responses by class of their status.
    pub responses: [u64; STATUS_CLASSES],
}

impl AddAssign for ThreadCounts {
    fn add_assign(&mut self, other: Self) {
        self.served += other.served;
        self.responses.iter_mut().zip(other.responses).for_each(|(sum, count)| *sum += count);
    }
}

impl ScoreboardLine {
    /// Claims the line for the thread `thread` of the worker `pid`, which is idle.
    pub fn claim(&self, pid: i32, thread: u32) {
        self.change(|| {
            self.pid.store(pid, Ordering::Relaxed);
            self.thread.store(thread, Ordering::Relaxed);
            self.state.store(IDLE, Ordering::Relaxed);
            self.since.store(now(), Ordering::Relaxed);
            self.served.store(0, Ordering::Relaxed);
            self.responses.iter().for_each(|count| count.store(0, Ordering::Relaxed));
            self.last_status.store(0, Ordering::Relaxed);
            self.resident.store(0, Ordering::Relaxed);
            self.request.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        });
    }

    /// Releases the line after the worker has exited, and returns what its thread has counted. Only
    /// the supervisor calls this.
    pub fn release(&self) -> ThreadCounts {
        let mut counts = ThreadCounts::default();
        self.change(|| {
            self.pid.store(0, Ordering::Relaxed);
            self.state.store(IDLE, Ordering::Relaxed);
            counts.served = self.served.swap(0, Ordering::Relaxed);
            for (sum, count) in counts.responses.iter_mut().zip(&self.responses) {
                *sum = count.swap(0, Ordering::Relaxed);
            }
        });
        counts
    }

    /// The thread begins to serve `request`, of which as much is kept as fits. The request has no
    /// timeout yet.
    pub fn begin(&self, request: &str) {
        self.change(|| {
            let (whole, rest) = request.as_bytes().as_chunks::<8>();
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            let pieces = whole.iter().chain([&last]).chain(std::iter::repeat(&[0; 8]));
            for (word, piece) in self.request.iter().zip(pieces) {
                word.store(u64::from_ne_bytes(*piece), Ordering::Relaxed);
            }
            self.timeout.store(0, Ordering::Relaxed);
            self.state.store(BUSY, Ordering::Relaxed);
            self.since.store(recently(), Ordering::Relaxed);
            increment(&self.served);
        });
    }

    /// Records the status of the response to the present request.
    pub fn set_response(&self, status: u16) {
        self.change(|| {
            self.last_status.store(status.into(), Ordering::Relaxed);
            let class = usize::from(status / 100).wrapping_sub(1);
            self.responses.get(class).iter().for_each(|count| increment(count));
        });
    }

    /// Sets for how many milliseconds the present request may take, from its beginning.
    pub fn set_timeout(&self, milliseconds: u64) {
        self.change(|| self.timeout.store(milliseconds, Ordering::Relaxed));
    }

    /// The thread has served its request and is idle.
    pub fn end(&self) {
        self.set_state(IDLE);
    }

    /// The thread serves no request and accepts no further connection.
    pub fn leave(&self) {
        self.set_state(LEAVING);
    }

    /// The thread could not be started.
    pub fn mark_missing(&self) {
        self.set_state(MISSING);
    }

    /// Records the resident memory of the worker in bytes.
    pub fn set_resident(&self, resident: u64) {
        self.change(|| self.resident.store(resident, Ordering::Relaxed));
    }

    fn set_state(&self, state: u32) {
        self.change(|| {
            self.state.store(state, Ordering::Relaxed);
            self.since.store(recently(), Ordering::Relaxed);
        });
    }

    fn change(&self, change: impl FnOnce()) {
        // Odd from now on, even if an earlier worker was killed in the middle of a change.
        let version = self.version.load(Ordering::Relaxed) | 1;
        self.version.store(version, Ordering::Relaxed);
        fence(Ordering::Release);
        change();
        self.version.store(version.wrapping_add(1), Ordering::Release);
    }
}

/// Adds 1 to a counter that no other thread writes, for the cost of a store.
fn increment(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}
