//! Lists the side effects of an import: what is open or running since a snapshot.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt as _,
};

use pyo3::prelude::*;
use wire::check::{Sharing, SideEffect};

use crate::loading::import_audit::{
    descriptors::{self, Descriptors},
    state::ProcessState,
    trace::Origins,
};

/// Lists what is new since `before` and still exists. `origins` names the responsible code as far
/// as known.
pub(crate) fn since(py: Python<'_>, before: &ProcessState, origins: &Origins) -> Vec<SideEffect> {
    // Lets `subprocess` wait for exited programs first.
    let awaited = awaited_programs(py).unwrap_or_default();
    let now = ProcessState::now();
    let mut side_effects = threads(before, &now, origins);
    side_effects.extend(children(before, &now, &awaited, origins));
    side_effects.extend(open_descriptors(py, before, &now, origins));
    side_effects.extend(shared_memory(before, &now, origins));
    side_effects
}

fn threads(before: &ProcessState, now: &ProcessState, origins: &Origins) -> Vec<SideEffect> {
    let mut threads: Vec<(Option<_>, usize)> = Vec::new();
    for thread in now.threads.difference(&before.threads) {
        let origin = origins.threads.get(thread).cloned();
        match threads.iter_mut().find(|(known, _)| *known == origin) {
            Some((_, count)) => *count += 1,
            None => threads.push((origin, 1)),
        }
    }
    let side_effects = threads.into_iter().map(|(origin, count)| SideEffect {
        what: format!("started {count} thread{}", if count == 1 { "" } else { "s" }),
        is_threads: true,
        sharing: Sharing::EachProcess,
        origin,
    });
    side_effects.collect()
}

fn children(
    before: &ProcessState,
    now: &ProcessState,
    awaited: &BTreeSet<i32>,
    origins: &Origins,
) -> Vec<SideEffect> {
    let running = now.children.difference(&before.children);
    let running = running.map(|child| (child, "is still running"));
    let exited = now.exited_children.difference(&before.exited_children);
    let exited = exited
        .filter(|child| awaited.contains(child))
        .map(|child| (child, "has exited and was not waited for"));
    let side_effects = running.chain(exited).map(|(child, state)| {
        let name = fs::read_to_string(format!("/proc/{child}/comm")).unwrap_or_default();
        SideEffect {
            what: format!("started the process `{}`, which {state}", name.trim_end()),
            is_threads: false,
            sharing: Sharing::EachProcess,
            origin: origins.children.get(child).cloned(),
        }
    });
    side_effects.collect()
}

fn open_descriptors(
    py: Python<'_>,
    before: &ProcessState,
    now: &ProcessState,
    origins: &Origins,
) -> Vec<SideEffect> {
    let all = Descriptors::new(py, &now.descriptors, &now.mappings);
    let new = now
        .descriptors
        .iter()
        .filter(|&(number, name)| before.descriptors.get(number) != Some(name));
    let side_effects = new.filter_map(|(&number, name)| {
        let (what, sharing) = descriptors::judge(number, name, &all)?;
        let origin = origins.descriptors.get(&(number, name.clone())).cloned();
        Some(SideEffect { what, is_threads: false, sharing, origin })
    });
    side_effects.collect()
}

/// Shared mappings without an open descriptor.
fn shared_memory(before: &ProcessState, now: &ProcessState, origins: &Origins) -> Vec<SideEffect> {
    let open: BTreeSet<&OsString> = now.descriptors.values().collect();
    // A semaphore is a mere lock, made to be shared by forked processes.
    let is_semaphore = |name: &OsStr| name.as_bytes().starts_with(b"/dev/shm/sem.");
    let new = now
        .mappings
        .shared
        .difference(&before.mappings.shared)
        .filter(|name| !open.contains(name) && !is_semaphore(name));
    let side_effects = new.map(|name| SideEffect {
        what: format!("mapped shared memory, `{}`", name.to_string_lossy()),
        is_threads: false,
        sharing: Sharing::EachProcess,
        origin: origins.mappings.get(name).cloned(),
    });
    side_effects.collect()
}

/// Programs that `subprocess` has not waited for, and whose exit status the application may still
/// query.
fn awaited_programs(py: Python<'_>) -> PyResult<BTreeSet<i32>> {
    let Ok(module) = py.import("sys")?.getattr("modules")?.get_item("subprocess") else {
        return Ok(BTreeSet::new());
    };
    // Waits for programs without a reference, as starting another program also does.
    let _ = module.call_method0("_cleanup");
    let class = module.getattr("Popen")?;
    let mut awaited = BTreeSet::new();
    for object in py.import("gc")?.call_method0("get_objects")?.try_iter()? {
        let object = object?;
        // Only the type is checked, since other objects may be incomplete.
        if object.get_type().is(&class)
            && object.getattr("returncode").is_ok_and(|status| status.is_none())
            && let Ok(pid) = object.getattr("pid").and_then(|pid| pid.extract())
        {
            awaited.insert(pid);
        }
    }
    Ok(awaited)
}
