//! The service of workers, with its defaults.

use std::os::fd::{AsRawFd as _, OwnedFd};

use diagnostics::message::{Code, LogMessage};
use wire::{
    launch::{Preload, Service},
    pool_logs,
};

use crate::{
    config::settings::Settings,
    exit::CommandError,
    guard::start_error,
    pool::{args::DEFAULT_DRAIN_SECS, listeners::Listener},
};

/// The service of one worker with one thread, which loads the application by itself.
pub(super) fn service(
    settings: &Settings,
    listeners: &[Listener],
    scoreboard: &OwnedFd,
) -> Service {
    let service = Service {
        listeners: listeners.iter().map(|listener| listener.socket.as_raw_fd()).collect(),
        threads: 1,
        workers: 1,
        max_requests: 0,
        max_age: 0,
        max_rss: 0,
        header_timeout_seconds: 0,
        socket_timeout_seconds: 0,
        connections: 0,
        slow_seconds: 0,
        drain_seconds: DEFAULT_DRAIN_SECS,
        scoreboard_fd: scoreboard.as_raw_fd(),
        preload: Preload::No,
        reload: false,
        reload_on: Vec::new(),
        logs: pool_logs::PoolLogs::default(),
        bell_fd: None,
        stacks_fd: None,
        connection_queue: None,
        limits_waiting: false,
        path_timeouts: settings.path_timeouts.clone(),
        warm: false,
        resident: false,
    };
    with_settings(service, settings)
}

/// `service` with the limits of `settings`.
pub(super) fn with_settings(service: Service, settings: &Settings) -> Service {
    settings.fastcgi.applied_to(settings.limits.applied_to(service))
}

/// The error of a pool for which the kernel refused a resource.
pub(super) fn cannot_start(error: std::io::Error) -> CommandError {
    CommandError::failed(
        LogMessage::new(Code::NoProcess, format!("cannot start the pool: {error}")).hint(
            start_error::file_size_hint(&error)
                .map(str::to_owned)
                .or_else(|| start_error::limit_hint(&error))
                .unwrap_or_else(|| "check that this user can run python".to_owned()),
        ),
    )
}
