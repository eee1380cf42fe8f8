//! The trial of an upgrade: a process of the next program loads the application in a template
//! process, and exits. The pool that runs decides by the result whether it executes that program.

use std::{io, os::fd::AsFd as _};

use diagnostics::message::LogMessage;
use nix::sys::signal::Signal;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use wire::running_clock;

use crate::{
    pool::supervisor::{
        action::Action,
        code::{Code, Role},
        config::ReloadableConfig,
        lifecycle::Event,
        resources::PoolResources,
    },
    request::Request,
    system::signals::SignalPipe,
};

/// Loads the application as the pool would. Returns the reason if that fails.
///
/// # Errors
/// If the kernel refuses a signal handler or a wait.
pub(in crate::pool) fn try_out(
    config: &ReloadableConfig,
    resources: &PoolResources,
) -> io::Result<Result<(), String>> {
    let child = SignalPipe::of(&[Signal::SIGCHLD])?;
    let mut code = Code::new(config, resources.scoreboard.clone(), false);
    let (service, settings) = (&config.service, &config.settings);
    let log = |message: &LogMessage| Request::of_pool(&settings.app).log(message);
    let mut result = None;
    let mut actions = code.load(&resources.launch(service, None, service.preload));
    loop {
        for action in actions {
            match action {
                Action::Log(message) => log(&message),
                Action::Load(preload) => {
                    let failed = code.load(&resources.launch(service, None, preload));
                    result = result.or((!failed.is_empty()).then_some(Event::NotLoaded));
                }
                Action::Raise(event @ (Event::Loaded | Event::NotLoaded)) if result.is_none() => {
                    result = Some(event);
                    if event == Event::Loaded {
                        // The pool may need what the template process has, so that exits first.
                        code.promote_next();
                    }
                    code.stop();
                }
                _ => {}
            }
        }
        if result.is_some() && code.templates().are_none() {
            return Ok(match code.failed_load() {
                Some(failed) => Err(failed.reason),
                None => Ok(()),
            });
        }
        await_news(&code, &child)?;
        child.received();
        let roles = [Role::Next, Role::Current, Role::Retired];
        actions = roles.into_iter().flat_map(|role| code.poll(role)).collect();
        actions.extend(code.kill_overdue());
    }
}

fn await_news(code: &Code, child: &SignalPipe) -> io::Result<()> {
    let now = running_clock::instant();
    let timeout = code.next_kill().map(|due| due.saturating_duration_since(now));
    let mut watched: Vec<_> = code
        .watched()
        .chain([child.as_fd()])
        .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
        .collect();
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(&mut watched, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
