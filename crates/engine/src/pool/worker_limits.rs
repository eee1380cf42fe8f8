//! Limits after which a worker is replaced: requests, age, memory.
//!
//! A worker counts its requests and exits at the limit. In a pool, the supervisor applies the other
//! limits, because it starts the next worker before this one exits. A worker without a supervisor
//! applies all limits, and its process manager starts another worker.

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
    max_requests: u64,
    memory: Option<MemoryLimit>,
    max_age: u64,
    deadline: Option<Instant>,
    /// A supervisor replaces this worker.
    is_managed: bool,
}

struct MemoryLimit {
    max_bytes: u64,
    /// This process's `statm`, kept open so that a check costs one call.
    statm: Descriptor,
    is_reported: AtomicBool,
}

/// The action after a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LimitAction {
    /// Continue to serve.
    Continue,
    /// Report this resident memory, in bytes, to the supervisor.
    ReportMemory(u64),
    /// Exit, for this reason.
    Exit(String),
}

impl WorkerLimits {
    /// The limits of a new worker of `service`.
    ///
    /// # Errors
    /// If the kernel does not report the memory of this process.
    pub(crate) fn new(service: &Service) -> io::Result<Self> {
        let is_managed = service.bell_fd.is_some();
        let max_age = if is_managed { 0 } else { with_jitter(service.max_age) };
        let memory = match service.max_rss {
            0 => None,
            max_bytes => Some(MemoryLimit {
                max_bytes,
                statm: Descriptor::made(|| File::open("/proc/self/statm").map(Into::into))?,
                is_reported: AtomicBool::new(false),
            }),
        };
        let age = Some(max_age).filter(|&seconds| seconds > 0).map(Duration::from_secs);
        Ok(Self {
            max_requests: with_jitter(service.max_requests),
            memory,
            max_age,
            deadline: age.and_then(|age| Instant::now().checked_add(age)),
            is_managed,
        })
    }

    /// The action after `served` requests.
    pub(crate) fn after(&self, served: u64) -> LimitAction {
        if self.max_requests > 0 && served >= self.max_requests {
            return LimitAction::Exit(format!("--max-requests reached ({served} requests served)"));
        }
        if let Some(memory) = &self.memory
            && let Some(resident) = memory.resident().filter(|&it| it > memory.max_bytes)
        {
            return match self.is_managed {
                false => LimitAction::Exit(format!(
                    "--max-rss reached ({} MiB of {} MiB after {served} requests)",
                    resident >> 20,
                    memory.max_bytes >> 20
                )),
                true if memory.is_reported.swap(true, Ordering::Relaxed) => LimitAction::Continue,
                true => LimitAction::ReportMemory(resident),
            };
        }
        self.now()
    }

    /// The action at this time.
    pub(crate) fn now(&self) -> LimitAction {
        match self.left() {
            Some(Duration::ZERO) => {
                LimitAction::Exit(format!("--max-age reached ({} s)", self.max_age))
            }
            _ => LimitAction::Continue,
        }
    }

    /// Time until the maximum age of the worker, if there is a maximum.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }
}

impl MemoryLimit {
    /// Resident memory in bytes; `None` if the kernel does not report it.
    fn resident(&self) -> Option<u64> {
        let mut text = [0; 128];
        let length = pread(&self.statm, &mut text, 0).ok()?;
        resident(std::str::from_utf8(text.get(..length)?).ok()?)
    }
}

/// Resident memory in bytes from the text of `statm`: the second number, in pages.
fn resident(statm: &str) -> Option<u64> {
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(u64::try_from(page_size()).ok()?))
}
