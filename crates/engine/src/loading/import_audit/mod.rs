//! The import audit: what loading an application leaves open or running, and which processes may
//! have it.
//!
//! `wsgate check`, templates of pools and templates of warm pools all ask [`audit`], so they say
//! the same. The table in `docs/imports.md` lists each case with its reason; `descriptors` and
//! `sockets` are that table.

pub(crate) mod descriptors;
pub(crate) mod messages;
pub(crate) mod sockets;
pub(crate) mod state;
pub(crate) mod trace;

use pyo3::prelude::*;
use wire::{
    check::{Sharing, SideEffect},
    launch::Launch,
    report::Report,
};

pub(crate) use crate::loading::import_audit::messages::{forked_all_the_same, not_forked};
use crate::loading::import_audit::{state::ProcessState, trace::Trace};

use crate::reporter::Reporter;

/// How the code is found that leaves something open or running.
pub(crate) enum Tracing {
    /// The code is not looked for.
    Off,
    /// Code that Python itself announces to open or start something: not what C code does by
    /// itself.
    Announced,
    /// All code. Loading takes several times as long.
    Complete,
}

/// Has `load` load an application, and lists what that leaves open or running, with the code that
/// did it as far as `tracing` finds that. A process with tracing is not to serve requests.
///
/// # Errors
/// If Python raises where no application is at fault.
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
    Ok(audit_with(py, trace, load, |before| py.detach(|| before.await_ends())))
}

/// Has `load` load an application for one CGI request, and reports to the gateway whether other
/// processes may load it meanwhile.
pub(crate) fn report<T, E>(
    py: Python<'_>,
    launch: &Launch,
    reporter: &Reporter,
    load: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    // Without a trace the report names no code.
    let trace = Trace::of_audit_events(py).ok();
    // Threads and child processes, which might be ending, are of no account here; a client waits.
    let (loaded, remains) = audit_with(py, trace, load, |_| {});
    if loaded.is_ok() {
        reporter.send(&match Sharing::of(&remains) {
            Sharing::OneProcess => Report::OneProcess(
                crate::loading::import_audit::messages::listing(&remains, launch),
            ),
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
    // An application that is loaded is held until the list is complete.
    let loaded = load();
    let origins = trace.map(|trace| trace.end(py)).unwrap_or_default();
    wait(&before);
    let remains = before.remains(py, &origins);
    (loaded, remains)
}
