//! The supervisor: keeps the pool at its size, replaces workers that end, and changes to new code
//! when it is told to.
//!
//! It cannot be hurt by an application: it holds no Python, and all that it reads are packets of
//! one size. A reload starts a new template beside the old one, and only when that is ready do its
//! workers take the places of the old; one that cannot load the application leaves the old one
//! serving.
//!
//! `phase` says what may follow on what, `templates` and `workers` do it, `places` and `size` know
//! which workers are wanted, and `oversight` looks at what they do.

mod connection_queue;
mod display;
mod loading;
mod oversight;
mod phase;
mod refusing;
mod scaling;
mod slots;
mod templates;
mod warm;
mod workers;

use std::{
    cell::RefCell,
    fmt, io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    time::{Duration, Instant},
};

use diagnostics::message::{Code, LogMessage};
use nix::sys::signal::Signal as Caught;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use wire::{
    connection_queue::ConnectionQueue, launch::Service, overdue_requests::OverdueWatch,
    running_clock, scoreboard::Scoreboard,
};

pub(in crate::pool) use crate::pool::supervisor::warm::OnDemand;
use crate::{
    config::settings::Settings,
    exit::{CommandError, Exit},
    guard::start_error,
    pool::{
        code_source::Origin,
        control::Control,
        error_log::ErrorLog,
        file_changes::Changes,
        listeners::Listener,
        logs::Logs,
        notify::Notify,
        supervisor::{
            display::About,
            phase::{Event, Phase, Step},
            refusing::Refusing,
            scaling::Size,
            slots::Places,
            templates::Templates,
            warm::Activity,
        },
        template::Template,
    },
    request::Request,
    system::signals::{SignalPipe, StraySignals},
};

/// What the pool is to be.
#[derive(Debug)]
pub(super) struct Terms {
    /// What it is called.
    pub(super) name: String,
    /// What each worker does, and how many of them there may be.
    pub(super) service: Service,
    /// Where the application comes from.
    pub(super) origin: Origin,
    /// What makes the pool reload when it changes, beside the script.
    pub(super) watched: Vec<PathBuf>,
    /// What it logs where.
    pub(super) logs: Logs,
    /// How many of them there are at least.
    pub(super) least: u32,
    /// How long a worker that is not needed stays.
    pub(super) idle: Duration,
    /// How long a worker that is to end may take for its requests.
    pub(super) drain: Duration,
    /// How long a process may take to end once it serves nobody any more.
    pub(super) linger: Duration,
    /// How long a request may take before it is logged.
    pub(super) slow: Option<Duration>,
    /// Slots for each of them: with two the next is there before the one that it replaces is told
    /// to end; with one there is at no time a process more than there may be.
    pub(super) slots: u32,
    /// Of a warm pool, which requests start.
    pub(super) on_demand: Option<OnDemand>,
}

/// What workers and the supervisor share.
pub(super) struct Shared {
    /// What the workers do.
    pub(super) scoreboard: Scoreboard,
    /// It again, for them to inherit.
    pub(super) scoreboard_fd: OwnedFd,
    /// What they ring when the supervisor is to look at it.
    pub(super) bell: OwnedFd,
    /// How the workers give each other connections, if they have any that are kept.
    pub(super) handover: Option<ConnectionQueue>,
}

/// A pool that runs.
pub(super) struct Supervisor<'a> {
    settings: &'a Settings,
    terms: Terms,
    listeners: Vec<Listener>,
    request: Request,
    phase: Phase,
    templates: Templates,
    places: Places,
    size: Size,
    activity: Activity,
    refusing: Refusing,
    scoreboard: Scoreboard,
    scoreboard_fd: OwnedFd,
    /// Workers ring it when the scoreboard is to be looked at.
    bell: OwnedFd,
    handover: Option<ConnectionQueue>,
    watch: OverdueWatch,
    changes: Changes,
    control: Option<Control>,
    /// The service manager, if there is one.
    notify: Notify,
    /// Who waits for the end of a reload.
    reloaders: Vec<UnixStream>,
    /// Who waits for the end of the pool: closing is the answer.
    stoppers: Vec<UnixStream>,
    /// Entries are about what is being looked at, and to write them changes nothing but this.
    error_log: RefCell<ErrorLog>,
    child: SignalPipe,
    end: SignalPipe,
    hang_up: SignalPipe,
    reopen: SignalPipe,
    stray: StraySignals,
}

impl<'a> Supervisor<'a> {
    /// A pool that has not begun.
    pub(super) fn new(
        settings: &'a Settings,
        terms: Terms,
        listeners: Vec<Listener>,
        shared: Shared,
    ) -> io::Result<Self> {
        let Shared { scoreboard, scoreboard_fd, bell, handover } = shared;
        let service = &terms.service;
        let max_age = Some(service.max_age).filter(|&seconds| seconds > 0).map(Duration::from_secs);
        let number = |count| usize::try_from(count).unwrap_or(usize::MAX);
        Ok(Self {
            settings,
            phase: Phase::Starting,
            templates: Templates::new(service.preload, terms.drain, terms.linger),
            places: Places::new(service.workers, terms.slots, service.threads, max_age),
            size: Size::new(number(terms.least), number(service.workers), terms.idle),
            activity: Activity::new(terms.on_demand.clone()),
            refusing: Refusing::new(settings),
            watch: OverdueWatch::new(terms.slow, settings.timeout, scoreboard.lines()),
            changes: crate::pool::supervisor::loading::changes(settings, &terms),
            notify: Notify::from_environment(terms.drain),
            terms,
            listeners,
            request: Request::synthetic("pool", &settings.app.to_string(), Vec::new()),
            scoreboard,
            scoreboard_fd,
            bell,
            handover,
            control: None,
            reloaders: Vec::new(),
            stoppers: Vec::new(),
            error_log: RefCell::default(),
            child: SignalPipe::of(&[Caught::SIGCHLD])?,
            end: SignalPipe::of(&[Caught::SIGTERM, Caught::SIGINT, Caught::SIGQUIT])?,
            // The second is what administrators of php-fpm are used to.
            hang_up: SignalPipe::of(&[Caught::SIGHUP, Caught::SIGUSR2])?,
            reopen: SignalPipe::of(&[Caught::SIGUSR1])?,
            stray: StraySignals::take()?,
        })
    }

    /// Serves until it is asked to stop.
    ///
    /// # Errors
    /// If the application cannot be loaded at the beginning.
    pub(super) fn run(mut self) -> Result<Exit, CommandError> {
        match Control::open(&self.terms.name) {
            Ok(control) => self.control = Some(control),
            Err(error) => self.log(
                &LogMessage::warning(
                    Code::NoControlSocket,
                    format!("the pool cannot be asked for its status: {error:#}"),
                )
                .hint(
                    "give it another --name, or set WSGATE_RUNTIME_DIR; HUP reloads it and TERM \
                     ends it all the same",
                ),
            ),
        }
        self.start_template(self.settings.clone(), self.terms.service.preload)
            .map_err(|error| CommandError::failed(start_error::message(self.settings, &error)))?;
        loop {
            self.wait();
            if self.end.received() {
                self.happened(Event::Signal);
            }
            if self.hang_up.received() {
                self.happened(Event::Reload);
            }
            if self.reopen.received() {
                self.reopen_logs();
            }
            for entry in self.stray.messages() {
                self.log(&entry);
            }
            self.reload_on_change();
            self.answer_questions();
            // Rung or not: news may have come before the bell.
            self.child.received();
            self.hear_templates();
            self.tell_manager();
            self.end_if_idle_or_old();
            self.give_up_if_stillborn();
            match self.phase {
                Phase::Ended => {
                    self.close_given();
                    self.error_log.borrow_mut().finish(&About(self.settings));
                    return Ok(Exit::Success);
                }
                // The log says why.
                Phase::Failed => {
                    self.error_log.borrow_mut().finish(&About(self.settings));
                    return Ok(Exit::Failure);
                }
                _ => {}
            }
            self.fit();
            self.fill_places();
            self.refuse_requests();
            self.kill_those_who_stay();
            self.watch_requests();
            self.error_log.borrow_mut().write(&About(self.settings));
        }
    }

    /// Takes the step that follows on `event` in this phase.
    fn happened(&mut self, event: Event) {
        let before = self.phase;
        let (phase, step) = before.after(event);
        self.phase = phase;
        if event == Event::NotLoaded && self.templates.current.is_none() {
            self.refusing.note_failure();
        }
        match step {
            Step::Nothing => {}
            Step::Load => {
                if phase == Phase::Reloading {
                    self.notify.reloading();
                    self.tell_of_upgrade();
                }
                // New code may be another about what cannot be forked.
                self.load(self.terms.service.preload);
            }
            Step::TakeOver => self.take_over(before == Phase::Reloading),
            Step::KeepOld => self.keep_old(),
            Step::LoadAgain => self.load_again(event == Event::NotLoaded),
            Step::GiveUp => self.end_reload("failed\n"),
            Step::Finish => {
                self.withdraw();
                self.log(&LogMessage::notice(
                    Code::PoolEnds,
                    "the pool ends; its workers finish their requests",
                ));
                // Before they are told, so that each finds here whatever another has given away.
                self.handover.iter().for_each(ConnectionQueue::close);
                for place in 0..self.places.all.len() {
                    self.dismiss(place);
                }
                self.templates.give_up_next();
                self.templates.retire_current();
                self.templates.all_end();
            }
            Step::Kill => self.templates.retired.iter_mut().for_each(Template::kill),
        }
    }

    fn wait(&self) {
        let now = running_clock::instant();
        let patience = self
            .next_due(now)
            .map(|due| due.saturating_duration_since(now).max(Duration::from_millis(1)));
        let log = self.error_log.borrow().watched();
        let sockets = self.listeners.iter().map(|listener| listener.socket.as_fd());
        let is_awaited = self.size.listens || self.refuses();
        let waiting = sockets
            .chain(self.handover.iter().map(ConnectionQueue::pop_end))
            .filter(|_| is_awaited);
        let mut watched: Vec<PollFd<'_>> = self
            .templates
            .all()
            .filter_map(Template::channel)
            .chain([self.child.as_fd(), self.end.as_fd(), self.hang_up.as_fd()])
            .chain([self.reopen.as_fd(), self.stray.as_fd(), self.bell.as_fd()])
            .chain(waiting)
            .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
            .chain(self.control.iter().flat_map(Control::watched))
            .chain(self.refusing.watched())
            .chain(log.map(|log| PollFd::from_borrowed_fd(log, PollFlags::OUT)))
            .collect();
        let polled = running_clock::wait(patience, |patience| {
            let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
            poll(&mut watched, patience.as_ref())
        });
        match polled {
            Ok(_) | Err(Errno::INTR) => {}
            // Only a lack of memory does this, and it passes or ends everything.
            Err(error) => {
                self.log(&LogMessage::error(Code::Internal, format!("waiting failed: {error}")))
            }
        }
    }

    /// When something is to be done that nobody tells us of.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        let leaving =
            self.places.leaving.iter().map(|leaving| leaving.due).chain(self.templates.next_due());
        let lingering = self.places.next_to_linger(self.terms.linger, &self.scoreboard, now);
        let others = leaving
            .chain(lingering)
            .chain(self.control.as_ref().and_then(Control::next_due))
            .chain(self.watch.next_due(&self.scoreboard))
            .chain(self.notify.next_due())
            .chain(self.refusing.next_due());
        if !self.phase.may_fork() {
            return others.min();
        }
        let template = self.lacks_template().then_some(self.templates.due);
        others
            .chain(self.places.next_due(now))
            .chain(template)
            .chain(self.size.look)
            .chain(self.changes.next_due())
            .chain(self.activity.due())
            .min()
    }

    /// Opens the logs again, and has all processes of the pool do so.
    fn reopen_logs(&mut self) {
        let entries = self.terms.logs.reopen(&self.scoreboard);
        self.templates.all().for_each(Template::reopen_logs);
        entries.iter().for_each(|entry| self.log(entry));
    }

    fn log(&self, entry: &LogMessage) {
        self.log_about(entry, &About(self.settings));
    }

    fn log_about(&self, entry: &LogMessage, about: &dyn fmt::Display) {
        self.error_log.borrow_mut().add(entry.for_log(about).as_bytes(), &About(self.settings));
    }
}
