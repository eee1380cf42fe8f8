//! Threads of the engine: their stack size, and what happens if a thread cannot be started.

use std::{
    io,
    sync::{Mutex, PoisonError},
    thread::{Builder, JoinHandle},
    time::Duration,
};

use diagnostics::{
    limit_hints,
    message::{Code, LogMessage},
};
use pyo3::prelude::*;
use rustix::process::{Resource, getrlimit};
use wire::clock::now;

/// The stack size of a thread in bytes, if the main thread's stack is unlimited or exceeds the
/// address space.
const DEFAULT_STACK_BYTES: usize = 8 << 20;

/// The smallest default stack size in bytes. A small limit may give the main thread less, but
/// Python's recursion limit expects more.
const MIN_STACK_BYTES: usize = 2 << 20;

/// The stack size in bytes that the engine's own code needs, whatever the application has set.
const ENGINE_STACK_BYTES: usize = 256 << 10;

/// The time until threads that could not be started are tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The size of a thread's stack in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StackSize(usize);

impl StackSize {
    /// A stack of `size` bytes, for a thread that does not run Python.
    pub(crate) const fn of_bytes(size: usize) -> Self {
        Self(size)
    }

    /// The stack size of Python's own threads: the size that the application has set by
    /// `threading.stack_size()`, otherwise the soft limit of the process.
    pub(crate) fn of_python(py: Python<'_>) -> Self {
        let asked = py.import("_thread").and_then(|module| {
            let asked: usize = module.call_method0("stack_size")?.extract()?;
            // Reading the size resets it to the default, which later threads of the application
            // would get.
            module.call_method1("stack_size", (asked,))?;
            Ok(asked)
        });
        let asked = asked.ok();
        Self(match asked {
            Some(asked @ 1..) => asked.max(ENGINE_STACK_BYTES),
            _ => default_stack(getrlimit(Resource::Stack).current),
        })
    }
}

fn default_stack(soft_limit: Option<u64>) -> usize {
    let limit = soft_limit
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|&limit| limit < usize::MAX / 4);
    limit.unwrap_or(DEFAULT_STACK_BYTES).max(MIN_STACK_BYTES)
}

/// Starts a thread.
///
/// # Errors
/// If the limit of threads is reached, or memory is short.
pub(crate) fn start(
    name: &str,
    StackSize(size): StackSize,
    run: impl FnOnce() + Clone + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let with =
        |size: usize| Builder::new().name(name.to_owned()).stack_size(size).spawn(run.clone());
    // The limit may exceed the address space.
    with(size).or_else(|error| {
        if size > DEFAULT_STACK_BYTES { with(DEFAULT_STACK_BYTES) } else { Err(error) }
    })
}

/// Work that still needs a thread, and the time of the next try.
pub(crate) struct PendingThreads<T> {
    state: Mutex<PendingState<T>>,
}

struct PendingState<T> {
    missing: Vec<T>,
    /// The time of the next try, by the scoreboard's clock.
    due: u64,
    /// The failure was logged.
    is_logged: bool,
}

impl<T> PendingThreads<T> {
    /// Work whose threads must be started at once.
    pub(crate) fn new(missing: Vec<T>) -> Self {
        Self { state: Mutex::new(PendingState { missing, due: 0, is_logged: false }) }
    }

    /// Starts the missing threads by `start`, if a try is due. Passes the log message for the first
    /// failure to `log`. Returns how many threads are still missing; `None` if another thread is
    /// trying.
    pub(crate) fn try_again(
        &self,
        mut start: impl FnMut(&T) -> io::Result<()>,
        log: impl FnOnce(&LogMessage),
    ) -> Option<usize> {
        let mut state = self.state.try_lock().ok()?;
        if state.missing.is_empty() || now() < state.due {
            return Some(state.missing.len());
        }
        let mut failure = None;
        state.missing.retain(|what| match start(what) {
            Ok(()) => false,
            Err(error) => {
                failure = Some(error);
                true
            }
        });
        state.due = now() + u64::try_from(RETRY_INTERVAL.as_millis()).unwrap_or(0);
        if let Some(error) = failure
            && !std::mem::replace(&mut state.is_logged, true)
        {
            log(&failure_message(state.missing.len(), &error));
        }
        state.is_logged &= !state.missing.is_empty();
        Some(state.missing.len())
    }

    /// The time until the next try.
    pub(crate) fn left(&self) -> Duration {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_millis(state.due.saturating_sub(now()).max(1))
    }
}

fn failure_message(count: usize, error: &io::Error) -> LogMessage {
    let threads = if count == 1 { "a thread".to_owned() } else { format!("{count} threads") };
    let sentence = format!("worker {} could not start {threads}: {error}", std::process::id());
    let hint = limit_hints::processes(None);
    LogMessage::new(Code::NoThread, sentence).hint(format!("{hint}; the worker tries again"))
}
