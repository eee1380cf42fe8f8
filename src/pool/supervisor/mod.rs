//! The supervisor of a pool: keeps the number of workers, replaces workers that exit, and reloads
//! the code.
//!
//! An application cannot harm the supervisor, which runs no Python and reads only small messages
//! from Python processes. A reload starts a new template process beside the old one. Workers are
//! replaced when the new one is ready; if it cannot load the code, the old one keeps serving.
//!
//! The state has four owners: [`Workers`], [`Code`], [`Control`] and [`Timeouts`]. The owners
//! respond to events with [`Action`]s. The supervisor is the loop that passes events on and carries
//! actions out; [`Lifecycle`] decides which phase follows on which event.

mod acceptor;
mod action;
mod blocks;
mod code;
mod code_config;
mod config;
mod configuration;
mod control;
mod exit_reasons;
mod failed_attempt;
mod growth;
mod leaving;
mod lifecycle;
mod lifetime;
mod messages;
mod refusal_log;
mod refusals;
mod request_queue;
mod resources;
mod scaling;
mod signals;
mod slots;
mod sockets;
mod stack_requests;
mod state;
mod statistics;
mod status_page;
mod status_server;
mod templates;
mod timeouts;
pub(super) mod trial;
mod upgrade;
mod worker_rules;
mod workers;

use std::io;

use ::control::protocol::ReloadResult;
use diagnostics::message::{Code as LogCode, LogMessage, Subject};
use rustix::process::kill_process;
use wire::launch::Preload;

pub(in crate::pool) use crate::pool::supervisor::{
    config::{OnDemand, PoolConfig, ReloadableConfig},
    request_queue::RequestQueue,
    resources::PoolResources,
    sockets::Sockets,
    status_server::StatusServer,
};
use crate::{
    exit::{CommandError, Exit},
    pool::{
        error_log::ErrorLog,
        notify::ManagedState,
        supervisor::{
            action::{Action, WorkerEvent},
            code::{Code, Role},
            configuration::Configuration,
            control::Control,
            lifecycle::{Event, Lifecycle, Phase, Reaction},
            lifetime::Lifetime,
            messages::Addresses,
            refusals::Refusals,
            signals::Signals,
            stack_requests::{Asker, StackRequests},
            statistics::Statistics,
            timeouts::Timeouts,
            upgrade::Upgrade,
            workers::Workers,
        },
    },
};

/// A running pool.
pub(super) struct Supervisor {
    configuration: Configuration,
    resources: PoolResources,
    lifecycle: Lifecycle,
    lifetime: Lifetime,
    workers: Workers,
    code: Code,
    control: Control,
    timeouts: Timeouts,
    upgrade: Upgrade,
    refusals: Refusals,
    stacks: StackRequests,
    signals: Signals,
    log: ErrorLog,
    statistics: Statistics,
}

impl Supervisor {
    /// Prepares a pool. It is boxed, since each move on the stack would stay in memory as long as
    /// the pool runs.
    ///
    /// # Errors
    /// If the kernel refuses a signal handler.
    pub(super) fn new(config: PoolConfig, resources: PoolResources) -> io::Result<Box<Self>> {
        let scoreboard = &resources.scoreboard;
        let first = &config.reloadable;
        Ok(Box::new(Self {
            log: ErrorLog::of_pool(&first.settings.app.to_string()),
            lifecycle: Lifecycle::new(),
            workers: Workers::new(&config, scoreboard.clone()),
            configuration: Configuration::new(first, config.reader),
            timeouts: Timeouts::new(
                first.slow,
                first.settings.shortest_timeout(),
                scoreboard.clone(),
            ),
            refusals: Refusals::new(&first.settings),
            stacks: StackRequests::new(resources.stacks_file.clone()),
            signals: Signals::install()?,
            upgrade: Upgrade::new(config.listen),
            control: Control::new(config.name, first.drain.saturating_add(first.linger)),
            code: Code::new(first, scoreboard.clone(), config.on_demand.is_some()),
            lifetime: Lifetime::new(config.on_demand),
            resources,
            statistics: Statistics::new(),
        }))
    }

    /// Serves until the pool is asked to stop.
    ///
    /// # Errors
    /// If the first template process cannot be started.
    pub(super) fn run(mut self: Box<Self>) -> Result<Exit, CommandError> {
        self.begin()?;
        // The timeout of the first load starts here, and no other event may come.
        self.keep_workers();
        loop {
            self.wait();
            self.take_turn();
            match self.lifecycle.phase() {
                Phase::Ended => {
                    self.resources.sockets.drop_queued();
                    self.log.finish();
                    return Ok(Exit::Success);
                }
                // The log says why.
                Phase::Failed => {
                    self.log.finish();
                    return Ok(Exit::Failure);
                }
                _ => {}
            }
            self.keep_workers();
            self.proceed_upgrade();
            self.log.write();
        }
    }

    /// Handles everything that has happened.
    fn take_turn(&mut self) {
        let actions = self.signals.poll();
        self.carry_out(actions);
        if self.signals.wants_reopened_logs() {
            self.reopen_logs();
        }
        if !self.lifecycle.phase().is_stopping() {
            let actions = self.code.check_changes();
            self.carry_out(actions);
        }
        self.answer_clients();
        for role in [Role::Next, Role::Current, Role::Retired] {
            let actions = self.code.poll(role);
            self.carry_out(actions);
        }
        let action = self.control.update(ManagedState {
            serves: self.lifecycle.phase().has_served(),
            is_stopping: self.lifecycle.phase().is_stopping(),
            workers: self.workers.count(),
            generation: self.code.generation(),
        });
        self.carry_out(action);
        if !self.lifecycle.phase().is_stopping() {
            let actions = self.lifetime.check(|| self.workers.last_request());
            self.carry_out(actions);
        }
        if !self.lifecycle.phase().is_stopping() {
            let actions = self.lifetime.check_starts(self.workers.useless_starts());
            self.carry_out(actions);
        }
    }

    /// Starts and stops workers as needed, and refuses requests that no worker can serve.
    fn keep_workers(&mut self) {
        self.resources.clear_bell();
        self.workers.begin_check();
        if self.lifecycle.phase().may_fork() {
            let may_rest =
                self.lifecycle.phase() == Phase::Serving && self.code.current().is_some();
            let (sockets, queue) = (&self.resources.sockets, &self.resources.request_queue);
            let actions = self.workers.check_scale(may_rest, |has_worker| {
                queue.as_ref().is_some_and(|queue| queue.waiting() > 0)
                    || sockets.connections_wait(has_worker)
            });
            self.carry_out(actions);
        }
        if self.lifecycle.phase().may_fork() {
            let action = self.code.load_if_missing(self.workers.scale().wanted());
            self.carry_out(action);
        }
        let may_order = self.lifecycle.phase().may_fork() && !self.upgrade.is_handing_over();
        if let Some(template) = self.code.current().filter(|_| may_order) {
            let actions = self.workers.fill_slots(template.generation());
            self.carry_out(actions);
        }
        self.control.end_replacement(|| self.workers.has_older(self.code.generation()));
        self.refuse_requests();
        self.answer_status_requests();
        let actions = self.workers.kill_overdue();
        self.carry_out(actions);
        let actions = self.code.kill_overdue();
        self.carry_out(actions);
        let actions = self.timeouts.check(|pid| self.workers.contains(pid));
        self.carry_out(actions);
    }

    /// Refuses requests that no worker can serve, and those that have waited too long.
    fn refuse_requests(&mut self) {
        let ability = self.ability();
        let threads = self.workers.count()
            * usize::try_from(self.configuration.service().threads).unwrap_or(1);
        let PoolResources { sockets, request_queue, .. } = &mut self.resources;
        let mut actions = Vec::new();
        if let Some(queue) = request_queue {
            actions.extend(queue.proceed(threads, sockets));
        }
        actions.extend(self.refusals.proceed(ability, sockets, || {
            let waiting = request_queue.as_mut().and_then(RequestQueue::take);
            waiting.or_else(|| sockets.take_queued().map(|connection| connection.socket))
        }));
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: impl IntoIterator<Item = Action>) {
        for action in actions {
            match action {
                Action::Log(message) => self.log.log(&message),
                Action::LogRequest(message, request) => {
                    self.log.log_about(&message, Subject::new(&request.subject()))
                }
                Action::Raise(event) => self.on_event(event),
                Action::Worker(event) => {
                    let actions = self.workers.on_event(event);
                    self.carry_out(actions);
                }
                Action::Signal(pid, signal) => {
                    // The process may have exited a moment ago.
                    let _ = kill_process(pid, signal);
                }
                Action::LogSlow(message, pid) => self.log_slow(message, pid),
                Action::WriteSlow(message) => self.write_slow(message),
                Action::AskForStacks(client, pid) => {
                    let dropped = self.stacks.add(Asker::Command(client), pid);
                    self.carry_out(dropped);
                }
                Action::Answer(client, text) => self.control.answer(client, &text),
                Action::Fork(order) => {
                    if !self.code.fork(order) {
                        self.workers.on_event(WorkerEvent::NotOrdered(order));
                    }
                }
                Action::Load(preload) => self.load(preload),
                // Gateways start a pool of another build by themselves.
                Action::Upgrade if self.lifetime.is_limited() => self.on_event(Event::Reload),
                Action::Upgrade => {
                    self.control.announce_reload();
                    self.upgrade.request();
                }
                Action::Rest => {
                    let action = self.code.rest();
                    self.carry_out([action]);
                }
                Action::ShrinkToMin => self.workers.shrink_to_min(),
                Action::NoteRequest => self.lifetime.note_request(),
                Action::NoteLoadSuccess => self.refusals.note_success(),
                Action::NoteLoadFailure => self.refusals.note_failure(),
                Action::ForbidWarm => self.lifetime.forbid_warm(),
                Action::Count(event) => self.statistics.count(event),
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        let reaction = self.lifecycle.on_event(event);
        if event == Event::NotLoaded && self.code.current().is_none() {
            self.refusals.note_failure();
        }
        match reaction {
            Reaction::Nothing => {}
            Reaction::Load => {
                // If that fails, the configuration of the start is still being loaded.
                if let Err(message) = self.reload() {
                    self.log.log(&message);
                    self.control.report_load(&ReloadResult::Failed(message.summary()));
                }
            }
            Reaction::Reload => {
                self.control.announce_reload();
                self.carry_out(self.code.check_engine());
                if let Err(message) = self.reload() {
                    let actions = self.code.load_failed(message);
                    self.carry_out(actions);
                }
            }
            Reaction::Serve => {
                let sockets = Addresses(self.resources.sockets.listeners());
                let app = self.configuration.app();
                let sentence = format!("the pool serves `{app}` at {sockets}");
                self.serve(LogMessage::new(LogCode::PoolReady, sentence));
            }
            Reaction::CompleteReload => {
                self.statistics.note_reload(None);
                let sentence = "the new code is loaded and serves";
                self.serve(LogMessage::new(LogCode::PoolReloaded, sentence));
            }
            Reaction::KeepOld => {
                self.keep_old_code();
                if self.lifetime.is_limited() {
                    // Gateways and workers of a warm pool find out that its code is stale.
                    self.on_event(Event::Stop);
                }
            }
            Reaction::RetryLoading => {
                let action = self.code.retry_later(true);
                self.carry_out(action);
            }
            Reaction::ReplaceTemplate => {
                let action = self.code.retry_later(false);
                self.carry_out(action);
            }
            Reaction::GiveUp => self.report_failed_load(),
            Reaction::Finish => self.finish(),
            Reaction::Kill => self.code.kill_all(),
            Reaction::CloseSockets => {
                self.resources.sockets.remove_files();
                self.resources.sockets.refuse_clients();
            }
        }
    }

    fn load(&mut self, preload: Preload) {
        let launch = self.configuration.launch(&self.resources, preload);
        let actions = self.code.load(&launch);
        self.carry_out(actions);
    }

    /// Serves with the template that is ready now.
    fn serve(&mut self, message: LogMessage) {
        self.code.promote_next();
        let note = self.adopt_config();
        self.refusals.note_success();
        self.log.log(&message);
        self.control.begin_replacement(note);
        for error in self.resources.sockets.publish() {
            self.log.log(
                &LogMessage::new(LogCode::WarmPoolFailed, format!("{error:#}")).hint(
                    "remove the file at this path; requests fall back to cold CGI until then",
                ),
            );
            self.on_event(Event::CannotServe);
        }
    }

    /// Asks all workers to stop.
    fn finish(&mut self) {
        if self.lifetime.is_limited() {
            self.hand_over_name();
        }
        self.log.log(&LogMessage::new(
            LogCode::PoolEnds,
            "stopping the pool: its workers finish their requests",
        ));
        // Before workers are asked to stop, so that they find all connections of the others.
        self.resources.sockets.close_queue();
        self.resources.request_queue.iter_mut().for_each(RequestQueue::close);
        let actions = self.workers.on_event(WorkerEvent::PoolStops);
        self.carry_out(actions);
        self.code.stop();
    }
}
