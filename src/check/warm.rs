//! Reports whether an application may be loaded once and forked for each request or worker.

use wire::{
    check::{Loaded, Sharing, SideEffect},
    launch::Work,
    message,
};

use crate::{
    check::{report::Report, response},
    config::{options::Mode, settings::Settings},
};

/// Maximum number of random generators in the report.
const MAX_GENERATORS: usize = 10;

/// Reports what the import of the application left open or running (`loaded.side_effects`). That is
/// a problem if `mode` forks the application. Returns which processes may share that.
pub(super) fn report_fitness(
    report: &mut Report,
    settings: &Settings,
    mode: Mode,
    loaded: &Loaded,
) -> Sharing {
    let traced = if loaded.side_effects.is_empty() {
        None
    } else {
        // Tracing the import takes several times as long, so the reported time of the import would
        // be wrong.
        response(settings, Work::Trace)
            .ok()
            .and_then(|bytes| message::decode::<Vec<SideEffect>>(&bytes).ok())
    };
    let side_effects =
        traced.as_deref().filter(|traced| !traced.is_empty()).unwrap_or(&loaded.side_effects);
    let sharing = Sharing::of(side_effects);
    let is_fit = sharing == Sharing::Forked;
    let named = side_effects.iter().filter(|one| is_fit || one.sharing > Sharing::Forked);
    let named = named.map(|one| one.sentence(&settings.app)).collect::<Vec<_>>().join("\n");
    match sharing {
        Sharing::Forked if named.is_empty() => {
            report.line("warm", "fit: nothing is left open or running after import");
        }
        Sharing::Forked => {
            report.line("warm", format!("fit: {named}\nwhich forked processes may share"))
        }
        Sharing::EachProcess => report.line(
            "warm",
            format!(
                "not fit: {named}\n\
                 forked processes share what is open, and do not have the threads: for --mode warm \
                 and --preload,\n\
                 connect, open and start when a request first needs that"
            ),
        ),
        Sharing::OneProcess => report.line(
            "warm",
            format!(
                "not fit: {named}\n\
                 only one process at a time may have that: --mode warm and resident fall back to \
                 cold CGI, and a pool needs\n\
                 --workers 1 --threads 8; or open it when a request needs it, and close it again"
            ),
        ),
    }
    match (sharing, mode) {
        (Sharing::Forked, _) => {}
        (_, Mode::Warm) => {
            report.problem("the application is not fit for its --mode warm: see `warm` above")
        }
        (Sharing::OneProcess, Mode::Resident) => {
            report.problem("the application is not fit for its --mode resident: see `warm` above")
        }
        _ => {
            report.conclude(
                "the application is not fit for --mode warm and --preload: see `warm` above; no \
                 other problem was found",
            );
        }
    }
    report_random_state(report, &loaded.generators);
    sharing
}

fn report_random_state(report: &mut Report, generators: &[String]) {
    if generators.is_empty() {
        return;
    }
    let mut named = generators.iter().take(MAX_GENERATORS).cloned().collect::<Vec<_>>().join("\n");
    if generators.len() > MAX_GENERATORS {
        named.push_str("\nand there are more");
    }
    report.line(
        "random",
        format!(
            "{named}\n\
             the random numbers are the same in each forked process: create a generator when a \
             request first needs it, or seed it\n\
             in os.register_at_fork(after_in_child=…)"
        ),
    );
}
