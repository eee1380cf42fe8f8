//! Warnings at the start of a pool, before its error log is used.

use diagnostics::message::{Code, LogMessage};

use crate::{
    config::{missing_path::MissingPath, settings::Settings},
    pool::inherited_sockets::InheritedSockets,
    request::Request,
};

/// Logs `message` about the application of a pool that is starting.
pub(super) fn log(settings: &Settings, message: &LogMessage) {
    Request::of_pool(&settings.app).log(message);
}

/// Warns that the pool runs as root: an attacker who controls the application controls the machine.
pub(super) fn warn_of_root(settings: &Settings, hint: &str) {
    let message = LogMessage::new(
        Code::ServesAsRoot,
        "the pool runs as root: the application may do anything on this machine",
    );
    log(settings, &message.hint(hint));
}

/// Warns of paths of options that do not exist.
pub(super) fn warn_of_missing_paths(settings: &Settings) {
    let watched = MissingPath::of_watching(settings);
    for missing in MissingPath::of_loading(settings).iter().chain(&watched) {
        log(settings, &missing.message());
    }
}

/// Closes passed sockets that the pool does not listen on, and logs a warning for each: clients
/// that connect to them would wait forever.
pub(super) fn close_unused(settings: &Settings, inherited: InheritedSockets) {
    for number in inherited.unused() {
        let sentence = format!(
            "closing file descriptor `{number}`: a service manager passed it, and no --listen \
             names it"
        );
        let message = LogMessage::new(Code::SocketLeft, sentence);
        log(
            settings,
            &message.hint(
                "omit --listen to serve all passed sockets, or add `--listen fd:N` for this one",
            ),
        );
    }
}
