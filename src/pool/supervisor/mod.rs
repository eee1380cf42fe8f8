//! The supervisor: keeps the pool at its size, replaces workers that end, and changes to new code when it is told to.
//!
//! It cannot be hurt by an application: it holds no Python, and all that it reads are packets of one size. A reload starts a new
//! template beside the old one, and only when that is ready do its workers take the places of the old; one that cannot load the
//! application leaves the old one serving.

mod loading;
mod oversight;
mod wording;

use std::{
    io,
    io::Write as _,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixStream, process::ExitStatusExt as _},
    },
    path::PathBuf,
    process::ExitStatus,
    time::{Duration, Instant},
};

use link::{
    entry::{Code, Entry},
    launch::{Preload, Service},
    pool::News,
    scoreboard::Scoreboard,
};
use nix::sys::signal::Signal as Caught;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, Signal, kill_process},
};

use super::{
    changes::Changes, control::Control, listen::Listener, logs::Logs, notify::Notify, origin::Origin,
    template::Template, watch::Watch,
};
use crate::{
    engine,
    exit::{Complaint, Exit},
    request::Request,
    settings::Settings,
    signals::Bell,
};
use wording::{About, Addresses, How};

/// A worker that lived shorter than this and has served nothing failed at its beginning.
const INFANCY: Duration = Duration::from_secs(1);

/// Wait until a template that takes no more orders is asked again.
const A_MOMENT: Duration = Duration::from_millis(50);

/// Longest wait before a place is filled again.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What the pool is to be.
#[derive(Debug)]
pub(super) struct Terms {
    /// What it is called.
    pub(super) name: String,
    /// What each worker does.
    pub(super) service: Service,
    /// Where the application comes from.
    pub(super) origin: Origin,
    /// What makes the pool reload when it changes, beside the script.
    pub(super) watched: Vec<PathBuf>,
    /// What it logs where.
    pub(super) logs: Logs,
    /// How long a worker that is to end may take for its requests.
    pub(super) drain: Duration,
    /// How long a request may take before it is logged.
    pub(super) slow: Option<Duration>,
}

/// A pool that runs.
pub(super) struct Supervisor<'a> {
    settings: &'a Settings,
    terms: Terms,
    listeners: Vec<Listener>,
    request: Request,
    places: Vec<Place>,
    /// Workers that were told to end, and when they will be killed.
    leaving: Vec<Leaving>,
    /// The template that new workers come from, the one that is to take over, and those whose workers are leaving.
    current: Option<Template>,
    next: Option<Template>,
    retired: Vec<Template>,
    generations: u64,
    /// What a new template for the code of the current one is told about loading it.
    preload: Preload,
    /// The application could be loaded once at least.
    has_begun: bool,
    template_due: Instant,
    failures: u32,
    stopping: bool,
    scoreboard: Scoreboard,
    scoreboard_fd: OwnedFd,
    watch: Watch,
    changes: Changes,
    control: Option<Control>,
    /// The service manager, if there is one.
    notify: Notify,
    /// Who waits for the end of a reload.
    reloaders: Vec<UnixStream>,
    /// Who waits for the end of the pool: closing is the answer.
    stoppers: Vec<UnixStream>,
    child: Bell,
    end: Bell,
    hang_up: Bell,
    reopen: Bell,
}

/// Room for one worker.
#[derive(Clone, Copy, Debug)]
struct Place {
    worker: Option<Live>,
    /// A worker of this generation was asked for.
    asked: Option<u64>,
    /// When the next may be asked for.
    due: Instant,
    /// How often in a row a worker failed at its beginning.
    failures: u32,
}

/// A worker that serves.
#[derive(Clone, Copy, Debug)]
struct Live {
    pid: Pid,
    generation: u64,
    since: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Leaving {
    pid: Pid,
    generation: u64,
    due: Instant,
}

impl<'a> Supervisor<'a> {
    /// A pool that has not begun.
    pub(super) fn new(
        settings: &'a Settings,
        terms: Terms,
        listeners: Vec<Listener>,
        scoreboard: Scoreboard,
        scoreboard_fd: OwnedFd,
    ) -> io::Result<Self> {
        let now = Instant::now();
        let watch = Watch::new(terms.slow, settings.timeout, scoreboard.lines());
        let notify = Notify::from_environment(terms.drain);
        let changes = loading::changes(settings, &terms);
        let place = Place { worker: None, asked: None, due: now, failures: 0 };
        Ok(Self {
            settings,
            places: vec![place; usize::try_from(terms.service.workers).unwrap_or(1)],
            preload: terms.service.preload,
            terms,
            listeners,
            request: Request::made("pool", &settings.app.to_string(), Vec::new()),
            leaving: Vec::new(),
            current: None,
            next: None,
            retired: Vec::new(),
            generations: 0,
            has_begun: false,
            template_due: now,
            failures: 0,
            stopping: false,
            watch,
            changes,
            control: None,
            notify,
            reloaders: Vec::new(),
            stoppers: Vec::new(),
            scoreboard,
            scoreboard_fd,
            child: Bell::on(&[Caught::SIGCHLD])?,
            end: Bell::on(&[Caught::SIGTERM, Caught::SIGINT])?,
            hang_up: Bell::on(&[Caught::SIGHUP])?,
            reopen: Bell::on(&[Caught::SIGUSR1])?,
        })
    }

    /// Serves until it is told to end.
    ///
    /// # Errors
    /// If the application cannot be loaded at the beginning.
    pub(super) fn run(mut self) -> Result<Exit, Complaint> {
        match Control::open(&self.terms.name) {
            Ok(control) => self.control = Some(control),
            Err(error) => self.log(
                &Entry::warning(Code::NoControl, format!("the pool cannot be asked for its status: {error:#}")).hint(
                    "give it another --name, or set WSGATE_RUNTIME_DIR; HUP reloads it and TERM ends it all the same",
                ),
            ),
        }
        self.current = Some(self.start_template(self.preload).map_err(super::cannot_begin)?);
        loop {
            self.wait();
            if self.end.rang() {
                self.stop();
            }
            if self.hang_up.rang() && !self.stopping {
                self.reload();
            }
            if self.reopen.rang() {
                self.reopen_logs();
            }
            self.reload_on_change();
            self.answer_questions();
            // Rung or not: news may have come before the bell.
            self.child.rang();
            self.hear_templates();
            if !self.has_begun && self.current.is_none() && self.next.is_none() && !self.stopping {
                // The log says why.
                return Ok(Exit::Failed);
            }
            self.fill_places();
            self.kill_those_who_stay();
            self.watch_requests();
            self.tell_manager();
            if self.stopping && self.current.is_none() && self.retired.is_empty() {
                return Ok(Exit::Done);
            }
        }
    }

    fn wait(&self) {
        let now = Instant::now();
        let patience = self.next_due().map(|due| due.saturating_duration_since(now).max(Duration::from_millis(1)));
        let patience = patience.and_then(|patience| Timespec::try_from(patience).ok());
        let templates = self.current.iter().chain(&self.next).chain(&self.retired);
        let mut watched: Vec<PollFd<'_>> = templates
            .filter_map(Template::channel)
            .chain([self.child.as_fd(), self.end.as_fd(), self.hang_up.as_fd(), self.reopen.as_fd()])
            .chain(self.control.iter().flat_map(Control::watched))
            .map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN))
            .collect();
        match poll(&mut watched, patience.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            // Only a lack of memory does this, and it passes or ends everything.
            Err(error) => self.log(&Entry::error(Code::Internal, format!("waiting failed: {error}"))),
        }
    }

    /// When something is to be done that nobody tells us of.
    fn next_due(&self) -> Option<Instant> {
        let leaving = self.leaving.iter().map(|leaving| leaving.due);
        let places =
            self.places.iter().filter(|place| place.worker.is_none() && place.asked.is_none()).map(|place| place.due);
        let template = self.current.is_none().then_some(self.template_due);
        let watch = self.watch.next_due(&self.scoreboard).into_iter().chain(self.notify.next_due());
        if self.stopping {
            leaving.chain(watch).min()
        } else {
            leaving.chain(places).chain(template).chain(watch).chain(self.changes.next_due()).min()
        }
    }

    fn start_template(&mut self, preload: Preload) -> io::Result<Template> {
        self.generations += 1;
        self.changes.note();
        let settings = self.settings_now()?;
        let sockets = self.listeners.iter().map(|listener| listener.socket.as_fd());
        let inherited: Vec<_> =
            sockets.chain([self.scoreboard_fd.as_fd()]).chain(self.terms.logs.inherited()).collect();
        let logs = self.terms.logs.terms(&self.scoreboard);
        let service = Service { logs, preload, ..self.terms.service.clone() };
        Template::start(settings, &service, &self.request, &inherited, self.generations)
    }

    /// Opens the logs anew, and has all processes of the pool do so.
    fn reopen_logs(&mut self) {
        let entries = self.terms.logs.reopen(&self.scoreboard);
        self.current.iter().chain(&self.next).chain(&self.retired).for_each(Template::reopen_logs);
        entries.iter().for_each(|entry| self.log(entry));
    }

    /// Starts a new template, which takes over when it is ready.
    fn reload(&mut self) {
        self.notify.reloading();
        if let Some(mut unfinished) = self.next.take() {
            unfinished.kill();
            self.retired.push(unfinished);
        }
        match self.start_template(self.terms.service.preload) {
            Ok(template) => self.next = Some(template),
            Err(error) => self.reload_failed(&error),
        }
    }

    fn stop(&mut self) {
        if self.stopping {
            // Told twice: whoever does that will not wait.
            return self.retired.iter_mut().for_each(Template::kill);
        }
        self.stopping = true;
        self.log(&Entry::notice(Code::PoolEnds, "the pool ends; its workers finish their requests"));
        if let Some(mut unfinished) = self.next.take() {
            unfinished.kill();
            self.retired.push(unfinished);
        }
        for place in 0..self.places.len() {
            self.dismiss(place);
        }
        self.retired.extend(self.current.take());
        self.retire();
    }

    /// Tells the worker in a place to end; the place is free then.
    fn dismiss(&mut self, place: usize) {
        if let Some(live) = self.places[place].worker.take() {
            self.let_go(live.pid, live.generation);
        }
    }

    fn let_go(&mut self, pid: Pid, generation: u64) {
        // It may have ended a moment ago.
        let _ = kill_process(pid, Signal::TERM);
        self.leaving.push(Leaving { pid, generation, due: Instant::now() + self.terms.drain });
    }

    fn kill_those_who_stay(&mut self) {
        let now = Instant::now();
        for leaving in self.leaving.iter_mut().filter(|leaving| leaving.due <= now) {
            let _ = kill_process(leaving.pid, Signal::KILL);
            leaving.due = now + LONGEST_WAIT;
        }
    }

    /// Asks for workers where they are missing, or are of older code.
    fn fill_places(&mut self) {
        if self.stopping {
            return;
        }
        if self.current.is_none() && Instant::now() >= self.template_due {
            match self.start_template(self.preload) {
                Ok(template) => self.current = Some(template),
                Err(error) => {
                    self.put_off_template();
                    self.log(&Entry::error(Code::TemplateDied, format!("no template could be started: {error}")));
                }
            }
        }
        let Some(template) = self.current.as_mut().filter(|template| template.ready) else {
            return;
        };
        let now = Instant::now();
        for (slot, place) in (0..).zip(&mut self.places) {
            let up_to_date = place.worker.is_some_and(|live| live.generation == template.generation);
            if !up_to_date && place.asked != Some(template.generation) && now >= place.due {
                if template.fork(slot) {
                    place.asked = Some(template.generation);
                } else {
                    place.due = now + A_MOMENT;
                }
            }
        }
    }

    /// Takes the news of all templates, and notices those that have ended.
    fn hear_templates(&mut self) {
        if let Some(mut template) = self.next.take() {
            let verdict = self.hear(&mut template);
            match (verdict, template.ended()) {
                (None, ended) if template.is_not_forkable => {
                    self.next = self.go_on_unloaded(template, ended);
                }
                (Some(true), None) => {
                    self.preload = template.preload;
                    self.log(&Entry::notice(Code::PoolReloaded, "the new code is loaded and takes over"));
                    self.end_reload("done\n");
                    self.failures = 0;
                    self.has_begun = true;
                    self.retired.extend(self.current.replace(template));
                }
                (None, None) => self.next = Some(template),
                _ => {
                    template.kill();
                    self.retired.push(template);
                    self.log(&Entry::error(Code::ReloadFailed, "the new code could not be loaded").hint(
                        "the pool goes on with the code it has; mend what the entry above names, and reload again",
                    ));
                    self.end_reload("failed\n");
                }
            }
        }
        if let Some(mut template) = self.current.take() {
            let verdict = self.hear(&mut template);
            if verdict == Some(true) {
                self.failures = 0;
                self.has_begun = true;
                self.log(&Entry::notice(
                    Code::PoolReady,
                    format!("the pool serves `{}` at {}", self.settings.app, Addresses(&self.listeners)),
                ));
            }
            match template.ended() {
                ended if template.is_not_forkable => {
                    self.preload = Preload::No;
                    self.current = self.go_on_unloaded(template, ended);
                }
                None => self.current = Some(template),
                Some(status) => self.template_died(&template, status),
            }
        }
        let mut retired = std::mem::take(&mut self.retired);
        retired.retain_mut(|template| {
            self.hear(template);
            let lives = template.ended().is_none();
            if !lives {
                // Whatever workers it had left have ended with it.
                self.leaving.retain(|leaving| leaving.generation != template.generation);
            }
            lives
        });
        self.retired = retired;
        self.retire();
    }

    fn retire(&mut self) {
        self.retired.iter_mut().for_each(Template::retire);
    }

    /// Takes the news of one template. `Some(true)` if it became ready just now, `Some(false)` if it cannot become so.
    fn hear(&mut self, template: &mut Template) -> Option<bool> {
        let mut verdict = None;
        while let Some(news) = template.news() {
            match news {
                News::Ready => verdict = Some(true),
                News::Unfit => {
                    verdict = Some(false);
                    self.see_out(template);
                }
                News::NotForkable => self.see_out(template),
                News::Born { slot, pid } => self.born(template.generation, slot, pid),
                News::Unborn { slot } => self.unborn(slot),
                News::Stillborn { slot } => self.stillborn(template.generation, slot),
                News::Gone { pid, status } => self.gone(pid, ExitStatus::from_raw(status)),
            }
        }
        verdict
    }

    fn born(&mut self, generation: u64, slot: u32, pid: i32) {
        let (Some(pid), Ok(slot)) = (Pid::from_raw(pid), usize::try_from(slot)) else {
            return;
        };
        let is_wanted = self.places.get(slot).is_some_and(|place| place.asked == Some(generation)) && !self.stopping;
        if !is_wanted {
            return self.let_go(pid, generation);
        }
        // The old one ends when the new one is there, so that the pool is never smaller.
        self.dismiss(slot);
        let place = &mut self.places[slot];
        place.asked = None;
        place.worker = Some(Live { pid, generation, since: Instant::now() });
    }

    fn unborn(&mut self, slot: u32) {
        if let Some(place) = usize::try_from(slot).ok().and_then(|slot| self.places.get_mut(slot)) {
            place.asked = None;
            put_off(place);
        }
        self.log(
            &Entry::error(Code::WorkerUnborn, format!("no worker could be forked for place {slot}"))
                .hint("this user has as many processes as it may have, or memory is short; it is tried again"),
        );
    }

    fn gone(&mut self, pid: i32, status: ExitStatus) {
        let Some(pid) = Pid::from_raw(pid) else {
            return;
        };
        if let Some(position) = self.leaving.iter().position(|leaving| leaving.pid == pid) {
            self.leaving.swap_remove(position);
            return;
        }
        let Some(slot) = self.places.iter().position(|place| place.worker.is_some_and(|live| live.pid == pid)) else {
            return;
        };
        let (requests, has_served) = (self.last_requests(pid), self.has_served(pid));
        let place = &mut self.places[slot];
        let lived = place.worker.take().map_or(Duration::ZERO, |live| live.since.elapsed());
        if status.success() && requests.is_empty() && (has_served || lived >= INFANCY) {
            // It has served as many requests as it may, or was told to end. Amid a request, or before the first, it is the
            // application that ends its process.
            place.failures = 0;
            return;
        }
        // One that has served at all is no failure of its beginning: whoever kills workers, or asks for what crashes them, is not
        // to leave others without a pool.
        if lived < INFANCY && !has_served {
            put_off(place);
        } else {
            place.failures = 0;
        }
        self.log(
            &Entry::error(
                Code::WorkerDied,
                format!("worker {slot} {} after {:.1} s", How(status), lived.as_secs_f32()),
            )
            .detail(requests)
            .hint("its place is filled again; look for its last words just above, and in the system's log"),
        );
    }

    fn template_died(&mut self, template: &Template, status: ExitStatus) {
        // The kernel has ended its workers with it.
        self.leaving.retain(|leaving| leaving.generation != template.generation);
        for place in &mut self.places {
            if place.worker.is_some_and(|live| live.generation == template.generation) {
                place.worker = None;
            }
            place.asked = None;
        }
        self.put_off_template();
        if let Some(reason) = &template.unfit {
            self.log(&engine::unfit(&template.settings.engine, &template.settings.interpreter.program, reason));
        } else if !template.explained {
            self.log(
                &Entry::error(Code::TemplateDied, format!("the template {}", How(status)))
                    .hint("its workers ended with it; another one is started"),
            );
        }
    }

    fn put_off_template(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.template_due = Instant::now() + wait_after(self.failures);
    }

    fn log(&self, entry: &Entry) {
        // A log that cannot be written leaves nowhere to say so.
        let _ = io::stderr().lock().write_all(entry.for_log(&About(self.settings)).as_bytes());
    }
}

fn put_off(place: &mut Place) {
    place.failures = place.failures.saturating_add(1);
    place.due = Instant::now() + wait_after(place.failures);
}

/// Twice as long after each failure in a row.
fn wait_after(failures: u32) -> Duration {
    Duration::from_millis(50).saturating_mul(1 << failures.min(16)).min(LONGEST_WAIT)
}
