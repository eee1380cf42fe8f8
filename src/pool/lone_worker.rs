//! A single worker without a supervisor, for a process manager that starts processes itself:
//! mod_fcgid, lighttpd, spawn-fcgi.

use std::{
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, process::CommandExt as _},
    },
    path::Path,
};

use wire::{
    app::App,
    launch::{Service, Work},
    scoreboard::Scoreboard,
};

use crate::{
    config::{
        options::ScriptOptions,
        settings::{Settings, default_pool_name},
    },
    exit::CommandError,
    guard::{start::Start, start_error},
    pool::{
        address::Address,
        allowed_addresses,
        file_creator::FileCreator,
        inherited_sockets::InheritedSockets,
        listeners::Listener,
        logs::Logs,
        service::{cannot_start, service},
        socket_access::SocketAccess,
        startup_warnings::{log, warn_of_missing_paths, warn_of_root},
    },
    python::engine,
    request::Request,
    system::{error_log, trusted_path::is_real_root},
};

/// Serves the socket on standard input with `app`. Returns only if that fails.
pub(crate) fn serve_standard_input(app: App, options: &ScriptOptions, base: &Path) -> CommandError {
    let settings = match Settings::resolve(options, app, base) {
        Ok(settings) => settings,
        Err(message) => return CommandError::settings(message),
    };
    let error_log = settings.error_log.as_deref();
    let warning = error_log.and_then(error_log::redirect_stderr);
    settings.logging.apply_to_pool(default_pool_name(None, &settings.app));
    warning.iter().for_each(|warning| log(&settings, warning));
    if is_real_root() {
        warn_of_root(
            &settings,
            "make the process manager start wsgate as another user (`spawn-fcgi -u www-data`)",
        );
    }
    warn_of_missing_paths(&settings);
    match open_standard_input() {
        Ok(listener) => serve(&settings, &[listener]),
        Err(error) => error,
    }
}

fn open_standard_input() -> Result<Listener, CommandError> {
    let address = Address::STANDARD_INPUT;
    let access = SocketAccess { mode: 0o600, user: None, group: None };
    let mut inherited = InheritedSockets::take_over(std::slice::from_ref(&address))?;
    Listener::open(&address, &access, FileCreator::new(None), &mut inherited)
}

fn serve(settings: &Settings, listeners: &[Listener]) -> CommandError {
    // The worker has no other socket, so this one must be usable.
    if let Err(message) = allowed_addresses::check(settings, listeners) {
        return CommandError::settings(message);
    }
    let scoreboard = match Scoreboard::create(1) {
        Ok((_, scoreboard)) => scoreboard,
        Err(error) => return cannot_start(error),
    };
    let options = &settings.fastcgi;
    let reload_on = options.reload_on.iter().map(|path| path.as_os_str().as_bytes().to_vec());
    let service = Service {
        reload: options.reload || is_reload_requested(),
        reload_on: reload_on.collect(),
        slow_seconds: options.slow.unwrap_or(0),
        ..service(settings, listeners, &scoreboard)
    };
    become_worker(settings, service, listeners, &scoreboard, &Logs::none())
}

/// Does the process manager replace a worker that exits, according to its configuration?
fn is_reload_requested() -> bool {
    std::env::var_os("WSGATE_RELOAD").is_some_and(|value| value == "1")
}

/// Makes this process the worker. Returns only if that fails.
pub(super) fn become_worker(
    settings: &Settings,
    service: Service,
    listeners: &[Listener],
    scoreboard: &OwnedFd,
    logs: &Logs,
) -> CommandError {
    let sockets = listeners.iter().map(|listener| listener.socket.as_fd());
    let inherited: Vec<_> = sockets.chain([scoreboard.as_fd()]).chain(logs.inherited()).collect();
    let request = Request::of_pool(&settings.app);
    // The engine is checked first, because no process could report a crash while the engine is
    // loaded.
    if let Some(message) = engine::damaged(&settings.engine, &settings.interpreter.program) {
        return CommandError::settings(message);
    }
    let error = match Start::new(settings, Work::Worker(service), &request, &inherited) {
        // The process manager chooses the process group.
        Ok(mut start) => start.command.exec(),
        Err(error) => error,
    };
    CommandError::failed(start_error::message(settings, &error))
}
