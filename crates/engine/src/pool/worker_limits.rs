//! Limits after which a worker is replaced: requests, age, memory.
//!
//! A worker counts its requests, and exits. In a pool the supervisor applies the other limits,
//! since it starts the next worker before this one exits. A worker without a supervisor exits by
//! itself, and its process manager starts another.

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

/// What is to be done after a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LimitAction {
    /// Go on.
    Continue,
    /// Report to the supervisor that this process has so many bytes of resident memory.
    ReportMemory(u64),
    /// Exit, for this reason.
    Exit(String),
}

impl WorkerLimits {
    /// The limits of a worker of `service` that begins now.
    ///
    /// # Errors
    /// If the kernel does not say how much memory this process has.
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

    /// What follows from `served` requests, the last of which is over.
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

    /// What follows from the time.
    pub(crate) fn now(&self) -> LimitAction {
        match self.left() {
            Some(Duration::ZERO) => {
                LimitAction::Exit(format!("--max-age reached ({} s)", self.max_age))
            }
            _ => LimitAction::Continue,
        }
    }

    /// How long until the worker has its maximum age, if there is one.
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

/// Resident bytes by the text of `statm`: its second number, in pages.
fn resident(statm: &str) -> Option<u64> {
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(u64::try_from(page_size()).ok()?))
}
