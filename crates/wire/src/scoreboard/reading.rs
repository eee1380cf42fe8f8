//! Reading a line of the scoreboard, which its thread may change at the same time.

use std::{
    sync::atomic::{Ordering, fence},
    time::Duration,
};

use crate::{
    running_clock,
    scoreboard::{
        STATUS_CLASSES, ScoreboardLine, ThreadCounts,
        state::{BUSY, IDLE, LEAVING, MISSING},
    },
};

/// How often a line that is being changed is read again. A change takes less than a microsecond.
const MAX_READS: usize = 1000;

/// The status of one thread of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadStatus {
    /// Process id of the worker; 0 if the line is free.
    pub pid: i32,
    /// The thread serves a request.
    pub busy: bool,
    /// The thread accepts no further connection.
    pub leaving: bool,
    /// The thread could not be started.
    pub missing: bool,
    /// When the thread entered this state, by [`crate::clock::now`].
    pub since: u64,
    /// Number of the thread in its worker.
    pub thread: u32,
    /// Requests that the thread has served, the present one included.
    pub served: u64,
    /// Responses of the thread by class of their status.
    pub responses: [u64; STATUS_CLASSES],
    /// Status of the last response, if there was any.
    pub last_status: Option<u16>,
    /// Bytes of resident memory of the worker after its last request; 0 if not measured.
    pub resident: u64,
    /// How long the present request may take, if it has a timeout.
    pub timeout: Option<Duration>,
    /// Id, method and target of the present request or the last one, as the client sent them:
    /// control characters have to be escaped before a person sees them.
    pub request: Vec<u8>,
}

impl ThreadStatus {
    /// How long the thread has been in this state, without time in which this process was stopped.
    pub fn elapsed(&self) -> Duration {
        running_clock::since(self.since)
    }

    /// What the thread has counted.
    pub fn counts(&self) -> ThreadCounts {
        ThreadCounts { served: self.served, responses: self.responses }
    }
}

impl ScoreboardLine {
    /// Reads the line; `None` if a worker was killed in the middle of a change.
    pub fn read(&self) -> Option<ThreadStatus> {
        self.read_consistently(Self::read_once)
    }

    /// Was the line ever claimed?
    pub(super) fn was_used(&self) -> bool {
        self.version.load(Ordering::Relaxed) != 0
    }

    /// Does the line belong to the worker `pid`? A worker that has outlived its template finds the
    /// line in use by another.
    pub fn is_of(&self, pid: i32) -> bool {
        self.pid.load(Ordering::Relaxed) == pid
    }

    /// How long ago the thread of the worker `pid` left, or could not be started. `None` if the
    /// thread accepts connections, or the line belongs to another worker.
    pub fn left_for(&self, pid: i32) -> Option<Duration> {
        let (owner, state, since) = self.read_consistently(|line| {
            (
                line.pid.load(Ordering::Relaxed),
                line.state.load(Ordering::Relaxed),
                line.since.load(Ordering::Relaxed),
            )
        })?;
        (owner == pid && [LEAVING, MISSING].contains(&state)).then(|| running_clock::since(since))
    }

    /// Can the thread accept a connection?
    pub(super) fn is_idle(&self) -> bool {
        self.pid.load(Ordering::Relaxed) != 0 && self.state.load(Ordering::Relaxed) == IDLE
    }

    /// Does the thread serve a request?
    pub fn is_busy(&self) -> bool {
        self.pid.load(Ordering::Relaxed) != 0 && self.state.load(Ordering::Relaxed) == BUSY
    }

    fn read_consistently<T>(&self, read: impl Fn(&Self) -> T) -> Option<T> {
        for _ in 0..MAX_READS {
            let before = self.version.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                let value = read(self);
                fence(Ordering::Acquire);
                if self.version.load(Ordering::Relaxed) == before {
                    return Some(value);
                }
            }
            std::hint::spin_loop();
        }
        None
    }

    fn read_once(&self) -> ThreadStatus {
        let mut request: Vec<u8> = self
            .request
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
            .collect();
        let length = request.iter().position(|&byte| byte == 0).unwrap_or(request.len());
        request.truncate(length);
        let state = self.state.load(Ordering::Relaxed);
        ThreadStatus {
            pid: self.pid.load(Ordering::Relaxed),
            busy: state == BUSY,
            leaving: state == LEAVING,
            missing: state == MISSING,
            since: self.since.load(Ordering::Relaxed),
            thread: self.thread.load(Ordering::Relaxed),
            served: self.served.load(Ordering::Relaxed),
            responses: self.responses.each_ref().map(|count| count.load(Ordering::Relaxed)),
            last_status: u16::try_from(self.last_status.load(Ordering::Relaxed))
                .ok()
                .filter(|&status| status > 0),
            resident: self.resident.load(Ordering::Relaxed),
            timeout: Some(self.timeout.load(Ordering::Relaxed))
                .filter(|&milliseconds| milliseconds > 0)
                .map(Duration::from_millis),
            request,
        }
    }
}
