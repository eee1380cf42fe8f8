//! How long a worker lives: so many requests, so many seconds, so much memory.
//!
//! Requests it counts itself, and ends. In a pool the supervisor sees to the rest, since it has the
//! next worker there before this one ends; a worker without a supervisor ends by itself, and its
//! process manager starts another.

use std::{
    fs::File,
    io,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rustix::{io::pread, param::page_size};
use wire::{jitter::with_jitter, launch::Service};

use crate::process::forks::Descriptor;

/// The limits of one worker.
pub(crate) struct WorkerLimits {
    requests: u64,
    memory: Option<MemoryLimit>,
    deadline: Option<Instant>,
    /// A supervisor replaces this worker.
    is_managed: bool,
}

struct MemoryLimit {
    limit: u64,
    /// This process's `statm`, kept open so that a look costs one call.
    statm: Descriptor,
    reported: AtomicBool,
}

/// What is to be done after a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LimitAction {
    /// Go on.
    Continue,
    /// Tell the supervisor that this process has so many bytes of memory.
    ReportMemory(u64),
    /// End, for this reason.
    Exit(String),
}

impl WorkerLimits {
    /// That of a worker of `service` which begins now.
    pub(crate) fn new(service: &Service) -> io::Result<Self> {
        let is_managed = service.bell_fd.is_some();
        let seconds =
            Some(with_jitter(service.max_age)).filter(|&seconds| seconds > 0 && !is_managed);
        let memory = match service.max_rss {
            0 => None,
            limit => Some(MemoryLimit {
                limit,
                statm: Descriptor::made(|| File::open("/proc/self/statm").map(Into::into))?,
                reported: AtomicBool::new(false),
            }),
        };
        Ok(Self {
            requests: with_jitter(service.max_requests),
            memory,
            deadline: seconds
                .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds))),
            is_managed,
        })
    }

    /// What follows from `served` requests, the last of which is over.
    pub(crate) fn after(&self, served: u64) -> LimitAction {
        if self.requests > 0 && served >= self.requests {
            return LimitAction::Exit(format!("it has served {served} requests"));
        }
        if let Some(memory) = &self.memory
            && let Some(resident) = memory.resident().filter(|&resident| resident > memory.limit)
        {
            return match self.is_managed {
                false => LimitAction::Exit(format!(
                    "it has {} MiB of memory after {served} requests",
                    resident >> 20
                )),
                true if memory.reported.swap(true, Ordering::Relaxed) => LimitAction::Continue,
                true => LimitAction::ReportMemory(resident),
            };
        }
        self.now()
    }

    /// What follows from the time.
    pub(crate) fn now(&self) -> LimitAction {
        match self.left() {
            Some(Duration::ZERO) => LimitAction::Exit("it is as old as it may become".to_owned()),
            _ => LimitAction::Continue,
        }
    }

    /// How long it lives yet, if that is known.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

impl MemoryLimit {
    /// Bytes that are resident now; nothing if the kernel does not say.
    fn resident(&self) -> Option<u64> {
        let mut text = [0; 128];
        let length = pread(&self.statm, &mut text, 0).ok()?;
        resident(std::str::from_utf8(text.get(..length)?).ok()?)
    }
}

/// Bytes that `statm` calls resident: its second number, in pages.
fn resident(statm: &str) -> Option<u64> {
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(u64::try_from(page_size()).ok()?))
}
