//! Threads of ours in which Python runs: how much stack they have, and what happens if there can be
//! no more.

use std::{
    io,
    sync::{Mutex, PoisonError},
    thread::{Builder, JoinHandle},
    time::Duration,
};

use diagnostics::message::{Code, LogMessage};
use pyo3::prelude::*;
use rustix::process::{Resource, getrlimit};
use wire::clock::now;

use crate::log::Log;

/// Stack of a thread where the main thread's is unlimited, in bytes; also where its limit is more
/// than there is memory for.
const ORDINARY_STACK: usize = 8 << 20;

/// Least stack of a thread for which the application has asked for nothing. Less is what a main
/// thread has under a small limit, but Python's recursion limit is made for more.
const LEAST_STACK: usize = 2 << 20;

/// What our own code needs, however little the application has asked for.
const OWN_STACK: usize = 256 << 10;

/// Wait until threads that could not be started are tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// How much stack a thread gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stack(usize);

impl Stack {
    /// So many bytes, for a thread in which Python does not run.
    pub(crate) const fn of_bytes(size: usize) -> Self {
        Self(size)
    }

    /// As much as Python's own threads have: what the application has set by
    /// `threading.stack_size()`, or else the soft limit of the process.
    pub(crate) fn of_python(py: Python<'_>) -> Self {
        let asked = py.import("_thread").and_then(|module| {
            let asked: usize = module.call_method0("stack_size")?.extract()?;
            // Asking sets it to the default, and threads that the application starts later would
            // have that.
            module.call_method1("stack_size", (asked,))?;
            Ok(asked)
        });
        let asked = asked.ok();
        Self(match asked {
            Some(asked @ 1..) => asked.max(OWN_STACK),
            _ => ordinary(getrlimit(Resource::Stack).current),
        })
    }
}

fn ordinary(soft_limit: Option<u64>) -> usize {
    let limit = soft_limit
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|&limit| limit < usize::MAX / 4);
    limit.unwrap_or(ORDINARY_STACK).max(LEAST_STACK)
}

/// Starts a thread.
///
/// # Errors
/// If there can be no more threads, or memory is short.
pub(crate) fn start(
    name: &str,
    Stack(size): Stack,
    run: impl FnOnce() + Clone + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let with =
        |size: usize| Builder::new().name(name.to_owned()).stack_size(size).spawn(run.clone());
    // A limit may be more than the address space has room for.
    with(size)
        .or_else(|error| if size > ORDINARY_STACK { with(ORDINARY_STACK) } else { Err(error) })
}

/// Things that need a thread and have none yet, and when they are tried again.
pub(crate) struct Missing<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    missing: Vec<T>,
    /// By the scoreboard's clock.
    due: u64,
    /// The log says so.
    is_said: bool,
}

impl<T> Missing<T> {
    /// All of them, to be tried at once.
    pub(crate) fn new(missing: Vec<T>) -> Self {
        Self { state: Mutex::new(State { missing, due: 0, is_said: false }) }
    }

    /// Tries those that are missing, if it is time. Gives how many are left, or nothing if another
    /// thread is at it.
    pub(crate) fn try_again(&self, mut start: impl FnMut(&T) -> io::Result<()>) -> Option<usize> {
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
        state.due = now() + u64::try_from(PAUSE.as_millis()).unwrap_or(0);
        if let Some(error) = failure
            && !std::mem::replace(&mut state.is_said, true)
        {
            say(state.missing.len(), &error);
        }
        state.is_said &= !state.missing.is_empty();
        Some(state.missing.len())
    }

    /// How long until they are to be tried again.
    pub(crate) fn left(&self) -> Duration {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_millis(state.due.saturating_sub(now()).max(1))
    }
}

fn say(count: usize, error: &io::Error) {
    let threads = if count == 1 { "a thread".to_owned() } else { format!("{count} threads") };
    let sentence = format!("worker {} could not start {threads}: {error}", std::process::id());
    Log::new("-", "(worker)").entry(&LogMessage::warning(Code::NoThread, sentence).hint(
        "raise the limit of processes (`ulimit -u`, `TasksMax`, `pids.max`), or make memory free; \
         the worker tries again",
    ));
}
