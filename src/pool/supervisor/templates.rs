//! Templates: the one that workers come from, the one that is being loaded, and those whose workers
//! are leaving.

use std::{
    io,
    os::{fd::AsFd as _, unix::process::ExitStatusExt as _},
    process::ExitStatus,
    time::{Duration, Instant},
};

use diagnostics::message::{Code, LogMessage};
use rustix::process::Pid;
use wire::{
    connection_queue::ConnectionQueue,
    launch::{Preload, Service},
    running_clock,
    template::TemplateEvent,
};

use crate::{
    config::settings::Settings,
    guard::start_error,
    pool::{
        supervisor::{
            Supervisor,
            display::{Addresses, How},
            phase::Event,
            slots::{Asked, wait_after},
        },
        template::Template,
    },
    python::engine,
};

/// How long a template that has loaded for nothing may take to end as programs do. A thread of the
/// application may keep it.
const FAREWELL: Duration = Duration::from_secs(1);

/// The templates of a pool.
pub(super) struct Templates {
    /// New workers come from it. There is none while a pool rests, or after a death.
    pub(super) current: Option<Template>,
    /// It is being loaded.
    pub(super) next: Option<Template>,
    /// They end when their workers have.
    pub(super) retired: Vec<Template>,
    /// Counts them.
    generations: u64,
    /// How often in a row one could not become or stay what it should be.
    failures: u32,
    /// When another may be started after that.
    pub(super) due: Instant,
    /// What a new one for the code of the current one is told about loading it.
    pub(super) preload: Preload,
    /// How long its workers may take when the pool ends.
    drain: Duration,
    /// How long one may take to end as programs do. A thread or an exit handler of the application
    /// may keep it.
    linger: Duration,
}

impl Templates {
    /// None yet; each will have `linger` for its end, once its workers have ended, which have
    /// `drain` for that.
    pub(super) fn new(preload: Preload, drain: Duration, linger: Duration) -> Self {
        Self {
            current: None,
            next: None,
            retired: Vec::new(),
            generations: 0,
            failures: 0,
            due: running_clock::instant(),
            preload,
            drain,
            linger,
        }
    }

    /// When one that should have ended by itself is killed.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.next.iter().chain(&self.retired).filter_map(|template| template.farewell).min()
    }

    /// All that have not ended.
    pub(super) fn all(&self) -> impl Iterator<Item = &Template> {
        self.current.iter().chain(&self.next).chain(&self.retired)
    }

    /// Is there no process of Python?
    pub(super) fn are_none(&self) -> bool {
        self.all().next().is_none()
    }

    /// The one that is ready lets its workers end, and ends then.
    pub(super) fn retire_current(&mut self) {
        self.retired.extend(self.current.take());
        self.let_retired_end();
    }

    /// The one that is being loaded is not needed.
    pub(super) fn give_up_next(&mut self) {
        if let Some(mut unfinished) = self.next.take() {
            unfinished.kill();
            self.retired.push(unfinished);
        }
    }

    fn let_retired_end(&mut self) {
        let due = running_clock::instant() + self.linger;
        self.retired.iter_mut().for_each(|template| template.retire(due));
    }

    /// The pool ends, and workers have been told so: none of those that are left, stopped or not,
    /// is waited for without an end.
    pub(super) fn all_end(&mut self) {
        let due = running_clock::instant() + self.drain + self.linger + FAREWELL;
        for template in self.retired.iter_mut() {
            template.farewell.get_or_insert(due);
            template.resume();
        }
    }

    /// Kills those that have not ended in time; tells of how many that was.
    pub(super) fn kill_those_who_stay(&mut self) -> usize {
        let now = running_clock::instant();
        let late = self.retired.iter_mut().filter_map(|template| {
            template.farewell.take_if(|due| *due <= now)?;
            template.kill();
            Some(())
        });
        late.count()
    }

    fn put_off(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.due = running_clock::instant() + wait_after(self.failures);
    }
}

impl Supervisor<'_> {
    /// Starts a template for `settings`, which is told `preload`, in the place of one that is being
    /// loaded.
    ///
    /// # Errors
    /// If no process can be had.
    pub(super) fn start_template(
        &mut self,
        settings: Settings,
        preload: Preload,
    ) -> io::Result<()> {
        self.templates.give_up_next();
        self.templates.generations += 1;
        let sockets = self.listeners.iter().map(|listener| listener.socket.as_fd());
        let shared = [self.scoreboard_fd.as_fd(), self.bell.as_fd()];
        let given = self.handover.iter().flat_map(ConnectionQueue::descriptors);
        let inherited: Vec<_> =
            sockets.chain(shared).chain(given).chain(self.terms.logs.inherited()).collect();
        let logs = self.terms.logs.terms(&self.scoreboard);
        let service = Service { logs, preload, ..self.terms.service.clone() };
        let generation = self.templates.generations;
        let template = Template::start(settings, &service, &self.request, &inherited, generation)?;
        self.templates.next = Some(template);
        Ok(())
    }

    /// As [`Supervisor::start_template`]; that none could be started is what happens to the pool
    /// then.
    pub(super) fn load(&mut self, preload: Preload) {
        self.changes.note();
        let started = self.settings_now().and_then(|settings| {
            self.start_template(settings, preload).map_err(|error| {
                let (reason, hint) = start_error::reason_and_hint(self.settings, &error);
                LogMessage::error(
                    Code::TemplateDied,
                    format!("no template could be started: {reason}"),
                )
                .hint(hint)
            })
        });
        if let Err(entry) = started {
            self.log(&entry);
            self.happened(Event::NotLoaded);
        }
    }

    /// Takes the news of all templates, and notices those that have ended.
    pub(super) fn hear_templates(&mut self) {
        if let Some(mut template) = self.templates.next.take() {
            let verdict = self.hear(&mut template);
            if template.is_not_forkable {
                template.kill_what_it_left();
            }
            let ended = template.ended();
            if template.is_not_forkable {
                return self.await_end_of_not_forkable(template, ended);
            }
            let event = match (verdict, ended) {
                (Some(true), None) => Some(Event::Loaded),
                (None, None) => None,
                _ => Some(Event::NotLoaded),
            };
            if event == Some(Event::NotLoaded) {
                self.explain(&template, ended);
                template.kill();
                self.templates.retired.push(template);
            } else {
                self.templates.next = Some(template);
            }
            if let Some(event) = event {
                self.happened(event);
            }
        }
        if let Some(mut template) = self.templates.current.take() {
            self.hear(&mut template);
            match template.ended() {
                None => self.templates.current = Some(template),
                Some(status) => {
                    // The kernel has ended its workers with it.
                    self.places.end_generation(template.generation, &self.scoreboard);
                    self.explain(&template, Some(status));
                    self.happened(Event::Died);
                }
            }
        }
        let mut retired = std::mem::take(&mut self.templates.retired);
        retired.retain_mut(|template| {
            self.hear(template);
            let lives = template.ended().is_none();
            if !lives {
                // Whatever workers it had left have ended with it.
                self.places.end_generation(template.generation, &self.scoreboard);
            }
            lives
        });
        self.templates.retired.extend(retired);
        self.templates.let_retired_end();
        if self.templates.are_none() {
            self.happened(Event::Empty);
        }
    }

    /// Takes the news of one template. `Some(true)` if it became ready just now, `Some(false)` if
    /// it cannot become so.
    fn hear(&mut self, template: &mut Template) -> Option<bool> {
        let mut verdict = None;
        while let Some(news) = template.news() {
            match news {
                TemplateEvent::Ready => verdict = Some(true),
                TemplateEvent::LoadFailed => verdict = Some(false),
                TemplateEvent::WorkerStarted { slot, pid } => {
                    if let Some(pid) = Pid::from_raw(pid) {
                        self.born(Asked { generation: template.generation, slot }, pid);
                    }
                }
                TemplateEvent::NotForkable | TemplateEvent::OneProcess => {
                    template.farewell = Some(running_clock::instant() + FAREWELL)
                }
                TemplateEvent::StartFailed { slot } => {
                    self.refusing.note_failure();
                    self.put_off(Asked { generation: template.generation, slot });
                }
                TemplateEvent::ForkFailed { slot } => {
                    self.unborn(Asked { generation: template.generation, slot })
                }
                TemplateEvent::WorkerExited { pid, status } => {
                    self.gone(pid, ExitStatus::from_raw(status))
                }
            }
        }
        verdict
    }

    /// Says why a template has ended, or cannot be used, unless it has said so itself.
    fn explain(&self, template: &Template, ended: Option<ExitStatus>) {
        if let Some(reason) = &template.unfit {
            self.log(&engine::unfit(
                &template.settings.engine,
                &template.settings.interpreter.program,
                reason,
            ));
        } else if !template.explained
            && let Some(status) = ended
        {
            let settings = &template.settings;
            let damaged = || engine::damaged(&settings.engine, &settings.interpreter.program);
            if let Some(entry) = (!template.ready).then(damaged).flatten() {
                return self.log(&entry);
            }
            let (while_doing, hint) = if template.ready {
                ("", "its workers ended with it; another one is started")
            } else {
                (
                    " while it loaded the application",
                    "look for its last words just above, and in the system's log",
                )
            };
            self.log(
                &LogMessage::error(
                    Code::TemplateDied,
                    format!("the template {}{while_doing}", How(status)),
                )
                .hint(hint),
            );
        }
    }

    /// New workers come from the template that is ready now.
    pub(super) fn take_over(&mut self, is_reload: bool) {
        self.templates.failures = 0;
        self.refusing.note_success();
        if let Some(template) = self.templates.next.take() {
            self.templates.preload = template.preload;
            self.templates.retired.extend(self.templates.current.replace(template));
            self.templates.let_retired_end();
        }
        self.log(&if is_reload {
            LogMessage::notice(Code::PoolReloaded, "the new code is loaded and takes over")
        } else {
            LogMessage::notice(
                Code::PoolReady,
                format!(
                    "the pool serves `{}` at {}",
                    self.settings.app,
                    Addresses(&self.listeners)
                ),
            )
        });
        self.end_reload("done\n");
        self.publish();
    }

    /// The new code cannot be loaded.
    pub(super) fn keep_old(&mut self) {
        let hint = if self.templates.current.is_some() {
            "the pool goes on with the code it has; mend what the entry above names, and reload \
             again"
        } else {
            "no code is loaded; mend what the entry above names, and the next connection has it \
             loaded"
        };
        self.log(
            &LogMessage::error(Code::ReloadFailed, "the new code could not be loaded").hint(hint),
        );
        self.end_reload("failed\n");
        if self.renewal() == Event::Stop {
            // Its processes find the code that they have stale.
            self.happened(Event::Stop);
        }
    }

    /// Another template is started when one is wanted, and not at once: the one before could not
    /// load the application, or died.
    pub(super) fn load_again(&mut self, could_not_load: bool) {
        self.templates.put_off();
        if could_not_load && self.templates.current.is_none() && self.activity.is_limited() {
            // Requests would wait for one of its processes before they are served cold.
            return self.happened(Event::Stop);
        }
        if self.templates.current.is_none() {
            // Where nobody waits for it, nothing is tried again.
            self.size.shrink_to_least();
        }
    }
}
