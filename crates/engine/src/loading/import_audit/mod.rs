//! The import audit: what loading an application leaves open or running, and which processes may
//! share that.
//!
//! `wsgate check`, templates of pools and templates of warm pools all call [`audit`], so their
//! findings agree. `docs/imports.md` explains each case in a table, which `side_effects`,
//! `descriptors` and `sockets` implement.

mod descriptors;
mod messages;
mod side_effects;
mod sockets;
mod state;
mod trace;

use pyo3::prelude::*;
use wire::{
    check::{Sharing, SideEffect},
    launch::Launch,
    report::Report,
};

pub(crate) use crate::loading::import_audit::messages::{forked_anyway, not_forked};
use crate::{
    loading::import_audit::{state::ProcessState, trace::Trace},
    process::thread_probe,
    reporter::Reporter,
};

/// How the audit finds the code that leaves something open or running.
pub(crate) enum Tracing {
    /// The audit does not look for the code.
    Off,
    /// Finds code that raises an audit event when opening or starting something. C code that opens
    /// something without an audit event is not found.
    Announced,
    /// Finds all code. Loading takes several times as long.
    Complete,
}

/// Runs `load`, and lists what loading leaves open or running. The list names the responsible code
/// as far as `tracing` finds it. A process with tracing must not serve requests.
///
/// Forked processes may have threads that come back there: by the hooks of their packages, or by
/// the function of `--after-fork`.
///
/// # Errors
/// If Python raises an error for which the application is not responsible.
pub(crate) fn audit<T>(
    py: Python<'_>,
    tracing: Tracing,
    launch: &Launch,
    load: impl FnOnce() -> T,
) -> PyResult<(T, Vec<SideEffect>)> {
    let trace = match tracing {
        Tracing::Off => None,
        Tracing::Announced => {
            let trace = Trace::of_audit_events(py)?;
            trace.look_at_thread_starts(py)?;
            Some(trace)
        }
        Tracing::Complete => Some(Trace::begin(py)?),
    };
    let wait = |before: &ProcessState| py.detach(|| before.await_exits());
    let (loaded, mut side_effects, threads) = audit_with(py, trace, load, wait);
    let (threads_only, others): (Vec<_>, Vec<_>) =
        side_effects.iter().partition(|side_effect| side_effect.is_threads);
    let is_obstacle = others.iter().any(|side_effect| side_effect.sharing > Sharing::Forked);
    if !threads_only.is_empty()
        && !is_obstacle
        && (launch.after_fork.is_some() || thread_probe::come_back(py, threads))
    {
        let threads = side_effects.iter_mut().filter(|side_effect| side_effect.is_threads);
        threads.for_each(|threads| threads.sharing = Sharing::Forked);
    }
    Ok((loaded, side_effects))
}

/// Runs `load` for one CGI request, and reports the audit to the gateway. The report says whether
/// other processes may also load the application at the same time.
pub(crate) fn report<T, E>(
    py: Python<'_>,
    launch: &Launch,
    reporter: &Reporter,
    load: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    // Without a trace the report names no code.
    let trace = Trace::of_audit_events(py).ok();
    // Does not wait for exiting threads and child processes: a client waits for the response.
    let (loaded, side_effects, _) = audit_with(py, trace, load, |_| {});
    if loaded.is_ok() {
        reporter.send(&match Sharing::of(&side_effects) {
            Sharing::OneProcess => Report::OneProcess(messages::listing(&side_effects, launch)),
            Sharing::EachProcess | Sharing::Forked => Report::Audited,
        });
    }
    loaded
}

/// Returns the number of threads that loading has started and that run, too.
fn audit_with<T>(
    py: Python<'_>,
    trace: Option<Trace>,
    load: impl FnOnce() -> T,
    wait: impl FnOnce(&ProcessState),
) -> (T, Vec<SideEffect>, usize) {
    let before = ProcessState::now();
    // Keeps the application alive until the list is complete.
    let loaded = load();
    let origins = trace.map(|trace| trace.end(py)).unwrap_or_default();
    wait(&before);
    let side_effects = side_effects::since(py, &before, &origins);
    let now = ProcessState::of_descriptors_and_threads();
    let threads = now.threads.difference(&before.threads).count();
    (loaded, side_effects, threads)
}
