//! The template's log messages about an import whose results processes must not share.

use std::fmt::Write as _;

use diagnostics::message::{Code, LogMessage};
use wire::{
    check::{Sharing, SideEffect},
    launch::{Launch, Service},
};

/// The log messages if workers are forked in spite of `side_effects`, with `--preload yes`.
pub(crate) fn forked_anyway(side_effects: &[SideEffect], launch: &Launch) -> Vec<LogMessage> {
    let app = &launch.app;
    let mut messages = Vec::new();
    let (threads, others): (Vec<_>, Vec<_>) =
        unshareable(side_effects).partition(|side_effect| side_effect.is_threads);
    for thread in &threads {
        let sentence = format!("`{app}` {} {}", thread.what, meanwhile(launch));
        messages.push(LogMessage::new(Code::ThreadsAtImport, sentence).hint(
            "threads do not live in the workers, which are forked from this process: let each \
             worker load the application with --preload no, or start threads when a request first \
             needs them; `wsgate check` names the code",
        ));
    }
    if !others.is_empty() {
        let sentence =
            format!("`{app}` left open {} what processes must not share", meanwhile(launch));
        let message = LogMessage::new(Code::OpenAtImport, sentence)
            .detail(list(others.iter().copied(), launch));
        messages.push(message.hint(
            "all workers share what this process has open: let each worker load the application \
             with --preload no, or open and connect when a request first needs it",
        ));
    }
    messages
}

/// The log message if `side_effects` prevent forking workers.
pub(crate) fn not_forked(
    side_effects: &[SideEffect],
    launch: &Launch,
    service: &Service,
) -> LogMessage {
    let app = &launch.app;
    let is_for_one = Sharing::of(side_effects) == Sharing::OneProcess;
    let (then, hint) = match (is_for_one, service.warm) {
        (true, true) => (
            "and what one process at a time may have, so its requests fall back to cold CGI",
            "let a request open it and close it again; or run a FastCGI pool with --workers 1 \
             --threads 8",
        ),
        (true, false) if service.workers > 1 => (
            "and one process at a time may have it: other workers fail to load the application, or \
             destroy its data",
            "run one worker with threads: --workers 1 --threads 8; or let a request open it and \
             close it again",
        ),
        (true, false) => (
            "so the worker loads it by itself",
            "a reload fails as long as the worker has it open: stop the pool and start it again \
             for new code",
        ),
        (false, true) if service.resident => (
            "so each process loads it by itself",
            "let a request open, connect and start these when it first needs them",
        ),
        (false, true) => (
            "so each process loads it by itself",
            "let a request open, connect and start these when it first needs them; or use --mode \
             resident, whose processes stay once they have loaded it",
        ),
        (false, false) => (
            "so each worker loads it by itself",
            "--preload no says the same without the attempt; --preload yes forks workers all the \
             same",
        ),
    };
    let hint = &if is_for_one {
        hint.to_owned()
    } else {
        format!("{}{hint}{}{SECRETS_HINT}", of_openblas(side_effects), of_threads(side_effects))
    };
    if Sharing::of(side_effects) == Sharing::Forked {
        let sentence = format!(
            "`{app}` left open or running what processes must not share when it was first loaded, \
             and nothing the second time, {then}"
        );
        return LogMessage::new(Code::NotPreloaded, sentence).hint(hint);
    }
    let sentence = format!(
        "`{app}` left open or running {} what processes must not share, {then}",
        meanwhile(launch)
    );
    let code = match is_for_one {
        true if service.warm => Code::OneProcessOnly,
        true if service.workers > 1 => Code::OneWorkerOnly,
        _ => Code::NotPreloaded,
    };
    LogMessage::new(code, sentence).detail(listing(side_effects, launch)).hint(hint)
}

/// The consequence if each worker loads the application itself.
const SECRETS_HINT: &str = "; a secret that is made at import is another one in each process, \
    which \
    then refuses the others' tokens: read it from a file or a variable";

/// The hint if nothing but threads prevents forking.
fn of_threads(side_effects: &[SideEffect]) -> &'static str {
    if unshareable(side_effects).all(|side_effect| side_effect.is_threads) {
        "; or name a function that starts the threads again in each process, with --after-fork \
         MODULE:FUNCTION"
    } else {
        ""
    }
}

/// The hint for threads that OpenBLAS started. numpy and scipy load OpenBLAS, so the application
/// did not start these threads on purpose.
fn of_openblas(side_effects: &[SideEffect]) -> &'static str {
    let has_threads = unshareable(side_effects).any(|side_effect| side_effect.is_threads);
    // If the maps cannot be read, the other hints have to suffice.
    let maps = || std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    if has_threads && maps().contains("openblas") {
        "OpenBLAS, which numpy loads, starts threads: --env OPENBLAS_NUM_THREADS=1 keeps it from \
         that, and the application can be forked; "
    } else {
        ""
    }
}

fn unshareable(side_effects: &[SideEffect]) -> impl Iterator<Item = &SideEffect> {
    side_effects.iter().filter(|side_effect| side_effect.sharing > Sharing::Forked)
}

/// Lists what processes must not share, a line for each, with the responsible code if known.
pub(crate) fn listing(side_effects: &[SideEffect], launch: &Launch) -> String {
    list(unshareable(side_effects), launch)
}

fn list<'a>(side_effects: impl Iterator<Item = &'a SideEffect>, launch: &Launch) -> String {
    side_effects.fold(String::new(), |mut text, side_effect| {
        // Writing to a string cannot fail.
        let _ = match &side_effect.origin {
            Some(_) => writeln!(text, "{}", side_effect.sentence(&launch.app)),
            None => writeln!(text, "{} (`wsgate check` names the code)", side_effect.what),
        };
        text
    })
}

fn meanwhile(launch: &Launch) -> &'static str {
    match launch.warm_up {
        None => "while it was loaded",
        Some(_) => "while it was loaded and answered its warm-up request",
    }
}
