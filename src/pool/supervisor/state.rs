//! The supervisor as a whole: what it waits for, its status, changes of its configuration, and how
//! one program takes over from another.

use std::{
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use ::control::{
    histogram::HistogramStatus,
    pool_status::{PoolMode, PoolStatus},
    protocol::ReloadResult,
};
use diagnostics::message::{Code as LogCode, LogMessage};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, getpid, kill_process},
};
use wire::{
    overdue_requests, running_clock,
    scoreboard::{BOUNDS_MICROSECONDS, HistogramSum, ThreadCounts},
};

use crate::{
    exit::CommandError,
    pool::{
        handover::Handover,
        supervisor::{
            Supervisor,
            action::Action,
            lifecycle::{Lifecycle, Phase},
            messages,
            refusals::Ability,
            request_queue::RequestQueue,
            stack_requests::Asker,
            status_server::StatusServer,
            upgrade::{CHECK_PAUSE, Running},
            workers,
        },
    },
};

/// Shortest wait for a deadline.
const MIN_WAIT: Duration = Duration::from_millis(1);

impl Supervisor {
    /// Waits for an event or the next deadline.
    pub(super) fn wait(&mut self) {
        let now = running_clock::instant();
        let timeout =
            self.next_due(now).map(|due| due.saturating_duration_since(now).max(MIN_WAIT));
        let polls_sockets =
            self.workers.scale().is_listening() || self.refusals.is_accepting(self.ability());
        let sockets = self.resources.sockets.watched().filter(|_| polls_sockets);
        let waiting = self.resources.request_queue.iter();
        let waiting = waiting.flat_map(|queue| queue.watched(&self.resources.sockets));
        let mut watched: Vec<PollFd<'_>> = self
            .code
            .watched()
            .chain(self.signals.watched())
            .chain([self.resources.bell.as_fd()])
            .chain(sockets)
            .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
            .chain(self.control.watched())
            .chain(self.refusals.watched())
            .chain(waiting)
            .chain(self.resources.status_server.iter().flat_map(StatusServer::watched))
            .chain(self.log.watched().map(|log| PollFd::from_borrowed_fd(log, PollFlags::OUT)))
            .collect();
        let polled = running_clock::wait(timeout, |timeout| {
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            poll(&mut watched, timeout.as_ref())
        });
        match polled {
            Ok(_) | Err(Errno::INTR) => {}
            // Only a lack of memory causes this error. The lack is temporary, or the kernel kills
            // the process.
            Err(error) => {
                let sentence = format!("the supervisor cannot wait for events: {error}");
                self.log.log(&LogMessage::new(LogCode::Internal, sentence));
            }
        }
    }

    /// The next deadline.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        let always = [
            self.workers.next_kill(now),
            self.code.next_kill(),
            self.control.next_due(),
            self.timeouts.next_due(),
            self.refusals.next_due(),
            self.stacks.next_due(),
            self.resources.request_queue.as_ref().and_then(RequestQueue::next_due),
            self.resources.status_server.as_ref().and_then(StatusServer::next_due),
            self.upgrade.next_due(),
            (self.takes_over() || self.control.is_replacing()).then(|| now + CHECK_PAUSE),
        ];
        let while_serving = [
            self.workers.next_due(now),
            self.code.next_due(self.workers.scale().wanted()),
            self.lifetime.next_due(),
        ];
        let may_fork = self.lifecycle.phase().may_fork();
        let while_serving = while_serving.into_iter().filter(|_| may_fork);
        always.into_iter().chain(while_serving).flatten().min()
    }

    /// Do requests wait here for workers of the previous program? These do not say when they take
    /// one.
    fn takes_over(&self) -> bool {
        let is_waiting =
            self.resources.request_queue.as_ref().is_some_and(|queue| queue.waiting() > 0);
        is_waiting && self.code.current().is_none() && self.workers.has_worker()
    }

    /// Reads the configuration again, and loads the code with it.
    ///
    /// # Errors
    /// The log message about the configuration.
    pub(super) fn reload(&mut self) -> Result<(), LogMessage> {
        self.control.begin_load();
        let min = self.workers.scale().min();
        if let Some(config) = self.configuration.read_next(min, &self.resources)? {
            self.code.set_next_config(config);
        }
        self.load(self.code.configured_preload());
        Ok(())
    }

    /// Serves with the configuration of the reload. Returns what the reload could not change.
    pub(super) fn adopt_config(&mut self) -> String {
        let adopted = self.configuration.adopt_next(&mut self.resources);
        let Some((config, unchanged)) = adopted else { return String::new() };
        self.log.set_app(self.configuration.app());
        self.refusals.set_settings(&config.settings);
        if let Some(queue) = &mut self.resources.request_queue {
            queue.set_settings(&config.settings);
        }
        self.control.set_stop_limit(config.drain.saturating_add(config.linger));
        self.code.set_limits(config.drain, config.linger);
        let actions = self.workers.set_config(&config);
        self.timeouts.set_limits(config.slow, config.settings.shortest_timeout());
        self.carry_out(actions);
        self.carry_out(unchanged.clone().map(Action::Log));
        unchanged.map(|message| message.sentence().to_owned()).unwrap_or_default()
    }

    /// Keeps the old code and configuration after a failed reload.
    pub(super) fn keep_old_code(&mut self) {
        self.configuration.discard_next();
        self.code.discard_next_config();
        self.log.log(&messages::reload_failed(self.code.current().is_some()));
        self.report_failed_load();
        self.statistics.note_reload(Some(self.failed_load()));
    }

    /// Reports to clients that the code or the configuration could not be loaded.
    pub(super) fn report_failed_load(&mut self) {
        self.control.report_load(&ReloadResult::Failed(self.failed_load()));
    }

    /// The ability of the pool to serve requests.
    pub(super) fn ability(&self) -> Ability {
        // The first load may hang, so that requests are refused while the pool starts, too.
        let phase = self.lifecycle.phase();
        let may_have_worker =
            (phase.may_fork() || phase == Phase::Starting) && !self.configuration.service().warm;
        Ability {
            lacks_worker: may_have_worker && !self.workers.has_worker(),
            is_attempting: self.code.is_loading() || self.workers.has_order(),
            failures: self.workers.max_failures(),
        }
    }

    /// Creates the control socket, and starts the first template process of this program.
    ///
    /// # Errors
    /// If that cannot be started.
    pub(super) fn begin(&mut self) -> Result<(), CommandError> {
        if let Some(message) = self.control.open() {
            self.log.log(&message);
        }
        let preload = self.code.configured_preload();
        if self.lifecycle.phase() == Phase::Starting {
            let launch = self.configuration.launch(&self.resources, preload);
            self.code.start_first(&launch).map_err(CommandError::failed)?;
        } else {
            self.load(preload);
        }
        Ok(())
    }

    /// Reopens the logs, and has all processes of the pool do so.
    pub(super) fn reopen_logs(&mut self) {
        let messages = self.resources.logs.reopen(&self.resources.scoreboard);
        self.code.reopen_logs();
        messages.iter().for_each(|message| self.log.log(message));
    }

    /// Logs `message` about a slow request of the worker `pid` with the stacks of its threads. The
    /// worker writes them to the error log itself, and not if the log's reader is behind: the
    /// worker would block.
    pub(super) fn log_slow(&mut self, message: LogMessage, pid: Pid) {
        if self.resources.logs.slow().is_some() {
            let asker = Asker::SlowLog(message);
            let dropped = self.stacks.add(asker, Some(pid.as_raw_nonzero().get()));
            return self.carry_out(dropped);
        }
        self.log.log(&message);
        if !self.log.is_behind() {
            // The process may have exited a moment ago.
            let _ = kill_process(pid, overdue_requests::Action::LogSlow.signal());
        }
    }

    /// Writes `message` to the slow log, or to the error log if that fails, or if a reload has
    /// removed the option.
    pub(super) fn write_slow(&mut self, message: LogMessage) {
        let messages = match self.resources.logs.slow() {
            Some(log) => log.write(message, self.log.subject()),
            None => vec![message],
        };
        messages.iter().for_each(|message| self.log.log(message));
    }

    /// Lets another warm pool start under this pool's name while this pool finishes its requests.
    pub(super) fn hand_over_name(&mut self) {
        self.resources.sockets.remove_files();
        let family = self.control.name().rsplit_once('-').map_or("warm", |(family, _)| family);
        self.control.rename(format!("{family}-ends-{}", getpid().as_raw_nonzero()));
        self.lifetime.release_lock();
        self.resources.sockets.refuse_clients();
    }

    /// Answers commands that have arrived at the control socket.
    pub(super) fn answer_clients(&mut self) {
        let actions = self.control.poll(self.lifecycle.phase().is_stopping());
        if self.control.wants_status() {
            let status = self.status();
            self.control.send_status(&status);
        }
        self.carry_out(actions);
        let actions = self.stacks.proceed(&self.workers);
        self.carry_out(actions);
    }

    /// Answers requests at `--status-listen`.
    pub(super) fn answer_status_requests(&mut self) {
        if let Some(mut server) = self.resources.status_server.take() {
            server.proceed(|| self.status());
            self.resources.status_server = Some(server);
        }
    }

    /// Takes the next step of an upgrade.
    pub(super) fn proceed_upgrade(&mut self) {
        let status = self.upgrade.is_handing_over().then(|| self.status());
        self.upgrade.proceed(Running {
            status: status.unwrap_or_default(),
            phase: self.lifecycle.phase(),
            workers: &self.workers,
            code: &mut self.code,
            control: &mut self.control,
            resources: &self.resources,
            clears_environment: self.configuration.clears_environment(),
            is_refusing: self.refusals.is_refusing(),
            log: &mut self.log,
        });
    }

    /// Takes over the pool of the previous program of this process.
    ///
    /// # Errors
    /// If a descriptor is missing.
    pub(in crate::pool) fn take_over(
        &mut self,
        handover: &mut Handover,
    ) -> Result<(), CommandError> {
        self.lifecycle = Lifecycle::after_upgrade();
        let status = std::mem::take(&mut handover.status);
        self.lifetime.started_before(Duration::from_secs(status.age));
        self.statistics.take_over(status);
        self.control.take_over(handover.control()?);
        if let Some(queue) = &mut self.resources.request_queue {
            queue.take_over(handover.held()?);
        }
        let templates = handover.templates()?;
        self.code.take_over(templates, handover.started);
        let actions = workers::handover::take_over(&mut self.workers, &handover.workers);
        self.carry_out(actions);
        let sentence = format!("wsgate {} has taken over the pool", wire::build());
        self.log.log(&LogMessage::new(LogCode::Upgraded, sentence));
        Ok(())
    }

    /// Why the last load has failed.
    fn failed_load(&self) -> String {
        self.code.failed_load().map(|failed| failed.reason).unwrap_or_default()
    }

    /// The status of the pool.
    pub(super) fn status(&self) -> PoolStatus {
        let sockets = &self.resources.sockets;
        let scoreboard = &self.resources.scoreboard;
        let ThreadCounts { served, responses } = self.workers.counts();
        let workers = self.workers.status();
        let age = self.lifetime.age().as_secs();
        scoreboard.record_busy();
        let (duration, mut waiting) = scoreboard.request_times();
        if let Some(queue) = &self.resources.request_queue {
            waiting.merge(queue.waits());
        }
        let service = self.configuration.service();
        let waiting_here = self.resources.request_queue.as_ref().map_or(0, RequestQueue::waiting);
        let mut status = PoolStatus {
            name: self.control.name().to_owned(),
            app: self.configuration.app().to_owned(),
            pid: getpid().as_raw_nonzero().get(),
            // The client knows these.
            user: String::new(),
            directory: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: wire::build().to_owned(),
            upgrading: self.upgrade.is_under_way(),
            failed_upgrade: self.upgrade.failed(),
            mode: match (service.warm, service.resident) {
                (false, _) => PoolMode::Fastcgi,
                (true, false) => PoolMode::Warm,
                (true, true) => PoolMode::Resident,
            },
            started: self.statistics.started(),
            age,
            listeners: sockets.status(),
            queued: u64::try_from(sockets.queued() + waiting_here).unwrap_or(u64::MAX),
            generation: self.code.generation(),
            preload: self.code.preload_name().to_owned(),
            min: self.workers.scale().min(),
            max: self.workers.scale().max(),
            idle: workers.iter().filter(|worker| !worker.busy && !worker.leaving).count(),
            busy: workers.iter().filter(|worker| worker.busy).count(),
            peak_busy: scoreboard.peak_busy(),
            max_reached: scoreboard.max_reached(),
            reloading: self.lifecycle.phase() == Phase::Reloading || self.control.is_replacing(),
            loading: self.code.is_loading(),
            resting: self.code.current().is_none() && !self.code.is_loading(),
            stopping: self.lifecycle.phase().is_stopping(),
            failed_load: self.code.failed_load(),
            last_reload: self.statistics.last_reload(),
            requests: served,
            responses: responses.into(),
            aborted: scoreboard.aborted(),
            counters: self.statistics.counters(),
            duration: histogram(&duration),
            waiting: histogram(&waiting),
            workers,
        };
        self.statistics.add_earlier(&mut status);
        status
    }
}

/// A histogram as the status shows it.
fn histogram(sum: &HistogramSum) -> HistogramStatus {
    HistogramStatus {
        bounds_microseconds: BOUNDS_MICROSECONDS.to_vec(),
        counts: sum.counts.to_vec(),
        sum_microseconds: sum.sum_microseconds,
    }
}
