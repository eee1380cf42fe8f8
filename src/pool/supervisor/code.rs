//! Owner of the code: its source, the template processes that load it, changed files, and retries
//! after failures.

use std::{
    os::fd::BorrowedFd,
    rc::Rc,
    time::{Duration, Instant},
};

use control::pool_status::FailedLoad;
use diagnostics::message::{Code as LogCode, LogMessage};
use wire::{launch::Preload, running_clock, scoreboard::Scoreboard};

use crate::{
    config::missing_path::MissingPath,
    guard::start_error,
    pool::{
        file_changes::FileChanges,
        handover::HandedTemplate,
        supervisor::{
            action::{Action, WorkerEvent},
            code_config::CodeConfigs,
            config::ReloadableConfig,
            failed_attempt::FailedAttempt,
            lifecycle::Event,
            messages,
            slots::{WorkerOrder, retry_pause},
            templates::{Templates, after_not_forkable, read_news},
        },
        template::{Loading, Template, TemplateLaunch},
    },
};

/// The code of a pool.
pub(super) struct Code {
    config: CodeConfigs,
    templates: Templates,
    changes: FileChanges,
    /// The preload instruction for another template with the current code.
    preload: Preload,
    /// Failures in a row of templates.
    failures: u32,
    /// The last attempt to load the code, if no attempt has succeeded since.
    failed_load: Option<FailedAttempt>,
    /// Earliest time of the next template.
    due: Instant,
    /// A warm pool stops when its code changes or cannot be loaded.
    is_warm: bool,
    /// The missing entries of `sys.path` that the log names already.
    missing: Vec<MissingPath>,
}

/// Which templates to poll.
#[derive(Clone, Copy, Debug)]
pub(super) enum Role {
    /// The template that is loading.
    Next,
    /// The template that workers are forked from.
    Current,
    /// The retired templates, which exit after their workers.
    Retired,
}

impl Code {
    /// The code of a pool with `config`, with no template yet. The script and the paths of
    /// `reload_on` are watched for changes.
    pub(super) fn new(
        config: &ReloadableConfig,
        scoreboard: Rc<Scoreboard>,
        is_warm: bool,
    ) -> Self {
        let configs = CodeConfigs::new(config);
        Self {
            templates: Templates::new(config.drain, config.linger, scoreboard),
            changes: FileChanges::new(configs.latest().watched()),
            config: configs,
            preload: config.service.preload,
            failures: 0,
            failed_load: None,
            due: running_clock::instant(),
            is_warm,
            missing: MissingPath::of_loading(&config.settings),
        }
    }

    /// The preload instruction for new code: it may be of another kind than the old code.
    pub(super) fn configured_preload(&self) -> Preload {
        self.config.latest().preload()
    }

    /// Sets the configuration that the next load tries.
    pub(super) fn set_next_config(&mut self, config: &ReloadableConfig) {
        self.config.set_next(config);
        self.changes.watch(self.config.latest().watched());
    }

    /// Starts the first template, with the settings of the start of the pool.
    ///
    /// # Errors
    /// The log message, if the process cannot be started.
    pub(super) fn start_first(&mut self, launch: &TemplateLaunch<'_>) -> Result<(), LogMessage> {
        let generation = self.templates.count();
        let settings = self.config.latest().settings();
        let template = Template::start(settings.clone(), launch, generation)
            .map_err(|error| start_error::message(settings, &error))?;
        self.templates.set_next(template);
        Ok(())
    }

    /// Loads the current code in a new template, which replaces a template that is still loading.
    pub(super) fn load(&mut self, launch: &TemplateLaunch<'_>) -> Vec<Action> {
        self.changes.record();
        match self.start(launch) {
            Ok(missing) => missing.iter().map(|it| Action::Log(it.message())).collect(),
            Err(message) => self.load_failed(message),
        }
    }

    /// Records that the code cannot be loaded, for the reason in `message`.
    pub(super) fn load_failed(&mut self, message: LogMessage) -> Vec<Action> {
        self.templates.kill_next();
        self.templates.note_failure();
        self.failed_load = Some(FailedAttempt::now(message.summary()));
        vec![Action::Log(message), Action::Raise(Event::NotLoaded)]
    }

    /// Starts a template with the current settings. Returns the entries of `sys.path` that are
    /// missing and were not missing before.
    fn start(&mut self, launch: &TemplateLaunch<'_>) -> Result<Vec<MissingPath>, LogMessage> {
        let config = self.config.latest();
        let settings = config.resolve()?;
        let missing = MissingPath::of_loading(&settings);
        self.templates.kill_next();
        let generation = self.templates.count();
        let template = Template::start(settings, launch, generation).map_err(|error| {
            let (reason, hint) = start_error::reason_and_hint(config.settings(), &error);
            LogMessage::new(
                LogCode::TemplateDied,
                format!("cannot start a template process: {reason}"),
            )
            .hint(hint)
        })?;
        self.templates.set_next(template);
        let known = std::mem::replace(&mut self.missing, missing.clone());
        Ok(missing.into_iter().filter(|it| !known.contains(it)).collect())
    }

    /// Loads the code again if `wanted` workers must be forked and no template exists.
    pub(super) fn load_if_missing(&self, wanted: usize) -> Option<Action> {
        let is_missing = self.is_missing(wanted) && running_clock::instant() >= self.due;
        is_missing.then_some(Action::Load(self.preload))
    }

    /// Checks the watched files and the installed engine for changes.
    pub(super) fn check_changes(&mut self) -> Vec<Action> {
        if self.changes.is_due() && self.is_warm && self.config.latest().is_engine_replaced() {
            let message = messages::engine_replaced_warm();
            return vec![Action::Log(message), Action::Raise(Event::Stop)];
        }
        let changed = self.changes.poll().filter(|_| self.templates.claim_reload());
        let Some(path) = changed else { return Vec::new() };
        let reaction = if self.is_warm { "stopping the pool" } else { "loading the new code" };
        let message = LogMessage::new(
            LogCode::ChangeSeen,
            format!("`{}` has changed; {reaction}", path.display()),
        );
        let event = if self.is_warm { Event::Stop } else { Event::Reload };
        vec![Action::Log(message), Action::Raise(event)]
    }

    /// A log message if another build of wsgate was installed: the administrator who reloads a pool
    /// after an upgrade may expect the new build.
    pub(super) fn check_engine(&self) -> Option<Action> {
        let is_replaced = self.config.latest().is_engine_replaced();
        is_replaced.then(|| Action::Log(messages::engine_replaced()))
    }

    /// Reads the news of templates, and notices exits.
    pub(super) fn poll(&mut self, role: Role) -> Vec<Action> {
        match role {
            Role::Next => self.poll_next(),
            Role::Current => self.poll_current(),
            Role::Retired => self.poll_retired(),
        }
    }

    fn poll_next(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(mut template) = self.templates.take_next() else { return actions };
        let result = read_news(&mut template, &mut actions);
        if let Loading::NotForkable { is_for_one_process } = template.loading() {
            template.kill_leftovers();
            if template.exit_status().is_some() {
                actions.extend(after_not_forkable(&template, is_for_one_process, self.is_warm));
            } else {
                template.kill_if_overdue(running_clock::instant());
                self.templates.set_next(template);
            }
            return actions;
        }
        let status = template.exit_status();
        match if status.is_some() { Some(Event::NotLoaded) } else { result } {
            Some(Event::NotLoaded) => {
                let message = messages::template_died(&template, status);
                let reason = message.as_ref().map(LogMessage::summary);
                let reason = reason.or_else(|| template.load_error().map(str::to_owned));
                self.failed_load = Some(FailedAttempt::now(reason.unwrap_or_default()));
                actions.extend(message.map(Action::Log));
                self.templates.kill_failed(template);
                actions.push(Action::Raise(Event::NotLoaded));
            }
            result => {
                self.templates.set_next(template);
                actions.extend(result.map(Action::Raise));
            }
        }
        actions
    }

    fn poll_current(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(mut template) = self.templates.take_current() else { return actions };
        read_news(&mut template, &mut actions);
        match template.exit_status() {
            None => self.templates.set_current(template),
            Some(status) => {
                // The kernel has killed the workers of the template.
                let generation = template.generation();
                actions.push(Action::Worker(WorkerEvent::TemplateExited { generation }));
                actions.push(Action::crash(status));
                actions.extend(messages::template_died(&template, Some(status)).map(Action::Log));
                actions.push(Action::Raise(Event::Died));
            }
        }
        actions
    }

    fn poll_retired(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut retired = self.templates.take_retired();
        retired.retain_mut(|template| {
            read_news(template, &mut actions);
            let is_running = template.exit_status().is_none();
            if !is_running {
                // The kernel has killed the remaining workers of the template.
                let generation = template.generation();
                actions.push(Action::Worker(WorkerEvent::TemplateExited { generation }));
            }
            is_running
        });
        self.templates.retire(retired);
        if self.templates.are_none() {
            actions.push(Action::Raise(Event::Empty));
        }
        actions
    }

    /// Makes the template that is ready the current one.
    pub(super) fn promote_next(&mut self) {
        self.failures = 0;
        self.failed_load = None;
        self.config.adopt_next();
        if let Some(current) = self.templates.promote_next() {
            self.preload = current.preload();
        }
    }

    /// The last attempt to load the code, if that failed and no attempt has succeeded since.
    pub(super) fn failed_load(&self) -> Option<FailedLoad> {
        self.failed_load.as_ref().map(FailedAttempt::status)
    }

    /// Delays the next template after a failure: the code could not be loaded, or the template
    /// died.
    pub(super) fn retry_later(&mut self, could_not_load: bool) -> Option<Action> {
        self.failures = self.failures.saturating_add(1);
        self.due = running_clock::instant() + retry_pause(self.failures);
        match self.templates.current() {
            Some(_) => None,
            // Requests would wait for a process of this pool before they fall back to cold CGI.
            None if could_not_load && self.is_warm => Some(Action::Raise(Event::Stop)),
            // Without a waiting connection there is no need to try again.
            None => Some(Action::ShrinkToMin),
        }
    }

    /// Takes over the templates of the previous program, which had started `started` templates.
    pub(super) fn take_over(&mut self, templates: Vec<HandedTemplate>, started: u64) {
        let settings = self.config.latest().settings();
        let handed_over = |it| Template::handed_over(it, settings.clone());
        self.templates.take_over(templates.into_iter().map(handed_over).collect(), started);
    }

    /// The held engine, which templates inherit.
    pub(super) fn engine(&self) -> Option<BorrowedFd<'_>> {
        self.config.latest().settings().engine.held()
    }

    /// The templates, for the next program of an upgrade.
    pub(super) fn templates(&self) -> &Templates {
        &self.templates
    }

    /// Kills the template that is loading the code.
    pub(super) fn give_up_loading(&mut self) {
        self.templates.kill_next();
    }

    /// Sets the time limits of processes that are asked to stop.
    pub(super) fn set_limits(&mut self, drain: Duration, linger: Duration) {
        self.templates.set_limits(drain, linger);
    }

    /// Returns to the old configuration after a failed reload.
    pub(super) fn discard_next_config(&mut self) {
        self.config.discard_next();
    }

    /// Orders a worker from the current template. Returns whether the order was sent.
    pub(super) fn fork(&mut self, order: WorkerOrder) -> bool {
        let current = self.templates.current_mut();
        current.is_some_and(|it| it.generation() == order.generation && it.fork(order.block))
    }

    /// Retires the current template: the pool rests.
    pub(super) fn rest(&mut self) -> Action {
        self.templates.retire_current();
        Action::Log(LogMessage::new(
            LogCode::PoolIdle,
            "the pool is idle: its last Python process exits, and the next connection starts \
             another",
        ))
    }

    /// Retires all templates: the pool stops.
    pub(super) fn stop(&mut self) {
        self.templates.stop_all();
    }

    /// Kills all templates, and the kernel their workers.
    pub(super) fn kill_all(&mut self) {
        self.templates.kill_retired();
    }

    /// Kills templates that did not exit in time.
    pub(super) fn kill_overdue(&mut self) -> Vec<Action> {
        let killed = 0..self.templates.kill_overdue();
        killed.map(|_| Action::Log(messages::template_stays())).collect()
    }

    /// Has all templates reopen their logs.
    pub(super) fn reopen_logs(&self) {
        self.templates.all().for_each(Template::reopen_logs);
    }

    /// The template that workers are forked from.
    pub(super) fn current(&self) -> Option<&Template> {
        self.templates.current()
    }

    /// How often code was loaded when the current template was started; 0 without one.
    pub(super) fn generation(&self) -> u64 {
        self.current().map_or(0, Template::generation)
    }

    /// Is a template loading the code?
    pub(super) fn is_loading(&self) -> bool {
        self.templates.is_loading()
    }

    /// Which process loads the application, as `--preload` names it.
    pub(super) fn preload_name(&self) -> &'static str {
        match self.current().map_or(self.preload, Template::effective_preload) {
            Preload::Auto | Preload::Trace => "auto",
            Preload::Yes => "yes",
            Preload::No => "no",
        }
    }

    /// Channels that are readable when there is news.
    pub(super) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.templates.all().filter_map(Template::channel)
    }

    /// Time at which a template may have to be killed.
    pub(super) fn next_kill(&self) -> Option<Instant> {
        self.templates.next_due()
    }

    /// Time at which files are checked, or the code may be loaded again for `wanted` workers.
    pub(super) fn next_due(&self, wanted: usize) -> Option<Instant> {
        let load = self.is_missing(wanted).then_some(self.due);
        load.into_iter().chain(self.changes.next_due()).min()
    }

    fn is_missing(&self, wanted: usize) -> bool {
        wanted > 0 && self.templates.current().is_none() && !self.templates.is_loading()
    }
}
