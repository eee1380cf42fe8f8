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
/// # Errors
/// If Python raises an error for which the application is not responsible.
pub(crate) fn audit<T>(
    py: Python<'_>,
    tracing: Tracing,
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
    Ok(audit_with(py, trace, load, |before| py.detach(|| before.await_exits())))
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
    let (loaded, side_effects) = audit_with(py, trace, load, |_| {});
    if loaded.is_ok() {
        reporter.send(&match Sharing::of(&side_effects) {
            Sharing::OneProcess => Report::OneProcess(messages::listing(&side_effects, launch)),
            Sharing::EachProcess | Sharing::Forked => Report::Audited,
        });
    }
    loaded
}

fn audit_with<T>(
    py: Python<'_>,
    trace: Option<Trace>,
    load: impl FnOnce() -> T,
    wait: impl FnOnce(&ProcessState),
) -> (T, Vec<SideEffect>) {
    let before = ProcessState::now();
    // Keeps the application alive until the list is complete.
    let loaded = load();
    let origins = trace.map(|trace| trace.end(py)).unwrap_or_default();
    wait(&before);
    let side_effects = side_effects::since(py, &before, &origins);
    (loaded, side_effects)
}
