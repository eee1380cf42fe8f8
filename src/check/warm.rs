//! Whether an application may be loaded once and forked for each request, or for each worker.

use wire::{
    check::{Loaded, Sharing, SideEffect},
    launch::Work,
};

use crate::{
    check::{Report, response},
    config::{options::Mode, settings::Settings},
};

/// Most generators that are named.
const GENERATORS_SHOWN: usize = 10;

/// Reports it. `loaded.remains` is what was found after the application was loaded; it is a problem
/// where `mode` needs what is forbidden.
pub(super) fn fitness(report: &mut Report, settings: &Settings, mode: Mode, loaded: &Loaded) {
    let traced = if loaded.side_effects.is_empty() {
        None
    } else {
        // To see who did it takes several times as long, and would make the time of the import
        // wrong.
        response(settings, Work::Trace).and_then(|bytes| SideEffect::decode(&bytes).ok())
    };
    let remains =
        traced.as_deref().filter(|traced| !traced.is_empty()).unwrap_or(&loaded.side_effects);
    let sharing = Sharing::of(remains);
    let is_fit = sharing == Sharing::Forked;
    let named = remains.iter().filter(|one| is_fit || one.sharing > Sharing::Forked);
    let named = named.map(|one| one.sentence(&settings.app)).collect::<Vec<_>>().join("\n");
    match sharing {
        Sharing::Forked if named.is_empty() => {
            report.line("warm", "fit: nothing is left open or running after import");
        }
        Sharing::Forked => report.line(
            "warm",
            format!(
                "fit: {named}\nwhich processes that are \
            forked may share"
            ),
        ),
        Sharing::EachProcess => report.line(
            "warm",
            format!(
                "not fit: {named}\n\
                 processes that are forked share what is open and do not have its threads: \
                 connect, open and start them\n\
                 when a request first needs them, for --mode warm and for pools that load the \
                 application once"
            ),
        ),
        Sharing::OneProcess => report.line(
            "warm",
            format!(
                "not fit: {named}\n\
                 one process at a time may have that: --mode warm and resident serve requests \
                 cold, and a pool needs\n\
                 --workers 1 --threads 8; or open it when a request needs it, and close it again"
            ),
        ),
    }
    match (sharing, mode) {
        (Sharing::Forked, _) => {}
        (_, Mode::Warm) => report.problem(
            "the application is not fit for --mode warm, which is asked for: see `warm` above"
                .to_owned(),
        ),
        (Sharing::OneProcess, Mode::Resident) => report.problem(
            "the application is not fit for --mode resident, which is asked for: see `warm` above"
                .to_owned(),
        ),
        _ => {
            report.verdict = "the application is not fit for --mode warm and --preload: see `warm` \
                above; there is no other problem"
        }
    }
    random_state(report, &loaded.generators);
}

fn random_state(report: &mut Report, generators: &[String]) {
    if generators.is_empty() {
        return;
    }
    let mut named =
        generators.iter().take(GENERATORS_SHOWN).cloned().collect::<Vec<_>>().join("\n");
    if generators.len() > GENERATORS_SHOWN {
        named.push_str("\nand there are more");
    }
    report.line(
        "random",
        format!(
            "{named}\n\
             the numbers repeat in each forked process: make a generator when a request first \
             needs it, or seed it again by\n\
             os.register_at_fork(after_in_child=…)"
        ),
    );
}
