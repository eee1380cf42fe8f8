//! Template processes of a pool: the current one, the next one, and retired ones.

use std::{
    os::unix::process::ExitStatusExt as _,
    process::ExitStatus,
    rc::Rc,
    time::{Duration, Instant},
};

use rustix::process::Pid;
use wire::{launch::Preload, running_clock, scoreboard::Scoreboard, template::TemplateEvent};

use crate::pool::{
    supervisor::{
        action::{Action, WorkerEvent},
        lifecycle::Event,
        slots::WorkerOrder,
    },
    template::Template,
};

/// How long a template that must not be forked may take to exit; also the margin at the end of the
/// pool.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// The template processes of a pool.
pub(super) struct Templates {
    current: Option<Template>,
    next: Option<Template>,
    retired: Vec<Template>,
    /// Number of templates that were started.
    started: u64,
    /// How long workers may take when the pool stops.
    drain: Duration,
    /// How long a template may take to exit after its last worker.
    linger: Duration,
    /// Tells all processes which attempt to load the code is the newest.
    scoreboard: Rc<Scoreboard>,
}

impl Templates {
    /// No templates. A template gets `linger` for its exit, after `drain` for its workers.
    pub(super) fn new(drain: Duration, linger: Duration, scoreboard: Rc<Scoreboard>) -> Self {
        Self {
            current: None,
            next: None,
            retired: Vec::new(),
            started: 0,
            drain,
            linger,
            scoreboard,
        }
    }

    /// Takes over the templates of the previous program, which had started `started` templates.
    pub(super) fn take_over(&mut self, templates: Vec<Template>, started: u64) {
        self.started = started;
        self.retire(templates);
    }

    /// Number of templates that were started.
    pub(super) fn started(&self) -> u64 {
        self.started
    }

    /// Sets the limits of [`Self::new`].
    pub(super) fn set_limits(&mut self, drain: Duration, linger: Duration) {
        (self.drain, self.linger) = (drain, linger);
    }

    /// Counts a template that is about to be started. Returns its generation.
    pub(super) fn count(&mut self) -> u64 {
        self.started += 1;
        self.scoreboard.code_loads().begin();
        self.started
    }

    /// Notes that the code could not be loaded.
    pub(super) fn note_failure(&self) {
        self.scoreboard.code_loads().fail();
    }

    /// Claims the reload for a change that the supervisor has noticed. Returns false if another
    /// process has noticed the change, too, and its signal is on its way.
    pub(super) fn claim_reload(&self) -> bool {
        self.scoreboard.code_loads().claim()
    }

    /// The template that workers are forked from; `None` while the pool rests or after a crash.
    pub(super) fn current(&self) -> Option<&Template> {
        self.current.as_ref()
    }

    /// The current template, mutable.
    pub(super) fn current_mut(&mut self) -> Option<&mut Template> {
        self.current.as_mut()
    }

    /// Is a template loading the code?
    pub(super) fn is_loading(&self) -> bool {
        self.next.is_some()
    }

    /// All templates that have not exited.
    pub(super) fn all(&self) -> impl Iterator<Item = &Template> {
        self.current.iter().chain(&self.next).chain(&self.retired)
    }

    /// Is there no template process?
    pub(super) fn are_none(&self) -> bool {
        self.all().next().is_none()
    }

    /// Removes the next template, to look at its news.
    pub(super) fn take_next(&mut self) -> Option<Template> {
        self.next.take()
    }

    /// Removes the current template, to look at its news.
    pub(super) fn take_current(&mut self) -> Option<Template> {
        self.current.take()
    }

    /// Removes the retired templates, to look at their news.
    pub(super) fn take_retired(&mut self) -> Vec<Template> {
        std::mem::take(&mut self.retired)
    }

    /// Sets the next template.
    pub(super) fn set_next(&mut self, template: Template) {
        self.next = Some(template);
    }

    /// Sets the current template.
    pub(super) fn set_current(&mut self, template: Template) {
        self.current = Some(template);
    }

    /// Retires templates: each exits after its last worker.
    pub(super) fn retire(&mut self, templates: impl IntoIterator<Item = Template>) {
        self.retired.extend(templates);
        let due = running_clock::instant() + self.linger;
        self.retired.iter_mut().for_each(|template| template.retire(due));
    }

    /// Makes the next template the current one, and retires its predecessor.
    pub(super) fn promote_next(&mut self) -> Option<&Template> {
        let next = self.next.take()?;
        let old = self.current.replace(next);
        self.retire(old);
        self.current.as_ref()
    }

    /// Retires the current template.
    pub(super) fn retire_current(&mut self) {
        let current = self.current.take();
        self.retire(current);
    }

    /// Kills a template that could not load the code.
    pub(super) fn kill_failed(&mut self, template: Template) {
        self.note_failure();
        self.kill(template);
    }

    /// Kills a template that is not needed.
    fn kill(&mut self, mut template: Template) {
        template.kill();
        self.retired.push(template);
    }

    /// Kills the next template.
    pub(super) fn kill_next(&mut self) {
        if let Some(next) = self.next.take() {
            self.kill(next);
        }
    }

    /// Retires all templates when the pool stops. Each gets a deadline, even if its workers are
    /// busy.
    pub(super) fn stop_all(&mut self) {
        self.kill_next();
        self.retire_current();
        let due = running_clock::instant() + self.drain + self.linger + EXIT_TIMEOUT;
        for template in &mut self.retired {
            template.kill_by(due);
            template.resume();
        }
    }

    /// Kills all retired templates at once.
    pub(super) fn kill_retired(&mut self) {
        self.retired.iter_mut().for_each(Template::kill);
    }

    /// Kills retired templates that did not exit in time. Returns their number.
    pub(super) fn kill_overdue(&mut self) -> usize {
        let now = running_clock::instant();
        let retired = self.retired.iter_mut();
        retired.filter_map(|template| template.kill_if_overdue(now).then_some(())).count()
    }

    /// Time at which a template may have to be killed.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.next.iter().chain(&self.retired).filter_map(Template::next_due).min()
    }
}

/// Reads the news of a template into `actions`. Returns the result of loading, if it is known now.
pub(super) fn read_news(template: &mut Template, actions: &mut Vec<Action>) -> Option<Event> {
    let generation = template.generation();
    let order = |block| WorkerOrder { generation, block };
    let mut result = None;
    while let Some(news) = template.next_news() {
        actions.push(Action::Worker(match news {
            TemplateEvent::Ready => {
                result = Some(Event::Loaded);
                continue;
            }
            TemplateEvent::LoadFailed { .. } => {
                result = Some(Event::NotLoaded);
                continue;
            }
            TemplateEvent::NotForkable | TemplateEvent::OneProcess => {
                template.kill_by(running_clock::instant() + EXIT_TIMEOUT);
                continue;
            }
            TemplateEvent::WorkerStarted { block, pid } => match Pid::from_raw(pid) {
                Some(pid) => WorkerEvent::Started(order(block), pid),
                None => continue,
            },
            TemplateEvent::StartFailed { block } => WorkerEvent::StartFailed(order(block)),
            TemplateEvent::ForkFailed { block, errno } => {
                WorkerEvent::ForkFailed(order(block), errno)
            }
            TemplateEvent::WorkerExited { pid, status } => match Pid::from_raw(pid) {
                Some(pid) => WorkerEvent::Exited(pid, ExitStatus::from_raw(status)),
                None => continue,
            },
        }));
    }
    // The news of a template of another build cannot be read.
    actions.extend(
        template
            .exited_workers()
            .into_iter()
            .map(|pid| Action::Worker(WorkerEvent::Exited(pid, ExitStatus::default()))),
    );
    result
}

/// A template that loaded the application but must not be forked has exited, so that its resources
/// are released. The next template traces the responsible code, and the template after that leaves
/// loading to the workers. A warm pool gives up if the application opens a resource that only one
/// process may have, because requests that fall back to cold CGI need the resource, too.
pub(super) fn after_not_forkable(
    template: &Template,
    is_for_one_process: bool,
    is_warm: bool,
) -> Vec<Action> {
    match template.preload() {
        Preload::Auto => vec![Action::Load(Preload::Trace)],
        _ if is_for_one_process && is_warm => {
            vec![Action::ForbidWarm, Action::Raise(Event::NotLoaded)]
        }
        _ => vec![Action::Load(Preload::No)],
    }
}
