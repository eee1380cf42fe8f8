//! What the supervisor sees of its workers without asking them, and whom it tells.

use std::{os::unix::net::UnixStream, rc::Rc};

use diagnostics::{escape, message::LogMessage};
use rustix::process::{Pid, getpid, kill_process};
use wire::overdue_requests::Action;

use crate::pool::{
    control::{PoolMode, PoolStatus, Question, WorkerStatus, answer},
    notify::State,
    supervisor::{
        Supervisor,
        loading::preload_word,
        phase::{Event, Phase},
    },
    template::Template,
};

/// Clients that may wait for the end of a reload, or of the pool; the oldest is let go for one
/// more.
const MAX_WAITING: usize = 256;

fn push_bounded(waiting: &mut Vec<UnixStream>, asker: UnixStream) {
    if waiting.len() == MAX_WAITING {
        waiting.remove(0);
    }
    waiting.push(asker);
}

impl Supervisor<'_> {
    /// Answers what was asked on the control socket.
    pub(super) fn answer_questions(&mut self) {
        let Some(control) = &mut self.control else { return };
        control.send_answers();
        let questions = control.questions();
        let mut status: Option<Rc<str>> = None;
        let mut reloads = false;
        for (question, asker) in questions {
            match question {
                // What cannot be put into words is not said; none of the types can bring that
                // about.
                Question::Status => {
                    // Of many who ask at once, all get the same answer.
                    let text = status
                        .get_or_insert_with(|| {
                            serde_json::to_string(&self.status()).unwrap_or_default().into()
                        })
                        .clone();
                    if let Some(control) = &mut self.control {
                        control.answer(asker, text);
                    }
                }
                // A pool that ends closes the connection, which is an answer, too.
                Question::Reload if self.phase.is_ending() => {}
                Question::Reload => {
                    push_bounded(&mut self.reloaders, asker);
                    reloads = true;
                }
                Question::Stop => {
                    push_bounded(&mut self.stoppers, asker);
                    self.happened(Event::Stop);
                }
            }
        }
        if reloads {
            self.happened(Event::Reload);
        }
    }

    /// Tells those who wait for a reload how it went.
    pub(super) fn end_reload(&mut self, word: &str) {
        self.notify.reloaded(word == "done\n");
        for asker in self.reloaders.drain(..) {
            answer(&asker, word);
        }
    }

    /// Tells the service manager how the pool is.
    pub(super) fn tell_manager(&mut self) {
        let trouble = self.notify.tell(State {
            serves: !matches!(self.phase, Phase::Starting | Phase::Failed),
            stopping: self.phase.is_ending(),
            workers: self.places.live().count(),
            generation: self.templates.current.as_ref().map_or(0, |template| template.generation),
        });
        if let Some(entry) = trouble {
            self.log(&entry);
        }
    }

    fn status(&self) -> PoolStatus {
        let lines =
            (0..self.scoreboard.lines()).filter_map(|number| self.scoreboard.line(number)?.read());
        PoolStatus {
            name: self.terms.name.clone(),
            app: self.settings.app.to_string(),
            pid: getpid().as_raw_nonzero().get(),
            listen: self.listeners.iter().map(|listener| listener.address.to_string()).collect(),
            generation: self.templates.current.as_ref().map_or(0, |template| template.generation),
            preload: preload_word(
                self.templates.current.as_ref().map_or(self.templates.preload, Template::loads),
            )
            .to_owned(),
            min: self.size.least,
            max: self.size.most,
            reloading: self.phase == Phase::Reloading,
            loading: self.templates.next.is_some(),
            resting: self.templates.current.is_none() && self.templates.next.is_none(),
            mode: match (self.terms.service.warm, self.terms.service.resident) {
                (false, _) => PoolMode::Fastcgi,
                (true, false) => PoolMode::Warm,
                (true, true) => PoolMode::Resident,
            },
            seconds: self.activity.age().as_secs(),
            served: self.places.served(&self.scoreboard),
            abandoned: self.scoreboard.abandoned(),
            ending: self.phase.is_ending(),
            workers: lines
                .filter(|reading| !reading.missing)
                .filter(|reading| Pid::from_raw(reading.pid).is_some_and(|pid| self.is_worker(pid)))
                .map(|reading| WorkerStatus {
                    pid: reading.pid,
                    busy: reading.busy,
                    leaving: self
                        .places
                        .leaving
                        .iter()
                        .any(|leaving| leaving.pid.as_raw_nonzero().get() == reading.pid),
                    milliseconds: u64::try_from(reading.elapsed().as_millis()).unwrap_or(u64::MAX),
                    served: reading.served,
                    request: escape::visible(&reading.request),
                })
                .collect(),
        }
    }

    /// Tells of slow requests, and ends those that take longer than they may.
    pub(super) fn watch_requests(&mut self) {
        for (action, reading) in self.watch.look(&self.scoreboard) {
            let Some(pid) = Pid::from_raw(reading.pid).filter(|pid| self.is_worker(*pid)) else {
                continue;
            };
            let request = escape::text(&reading.request);
            match action {
                Action::LogSlow => {
                    self.log(&LogMessage::slow_request(&request, reading.pid, reading.elapsed()));
                }
                Action::Abort => {
                    self.log(&LogMessage::not_interrupted(&request, reading.elapsed()));
                }
                Action::Interrupt | Action::Kill => {}
            }
            if action == Action::LogSlow && self.error_log.borrow().is_behind() {
                // The worker would wait until somebody reads the stacks.
                continue;
            }
            // It may have ended a moment ago.
            let _ = kill_process(pid, action.signal());
        }
    }

    /// Is `pid` a worker of ours, so that its number is nobody else's?
    fn is_worker(&self, pid: Pid) -> bool {
        self.places.live().any(|(_, live)| live.pid == pid)
            || self.places.leaving.iter().any(|leaving| leaving.pid == pid)
    }

    /// Has the worker with this number served a request?
    pub(super) fn has_served(&self, pid: Pid) -> bool {
        let mut lines =
            (0..self.scoreboard.lines()).filter_map(|number| self.scoreboard.line(number)?.read());
        lines.any(|reading| reading.pid == pid.as_raw_nonzero().get() && reading.served > 0)
    }

    /// What the worker with this number was serving when it ended.
    pub(super) fn last_requests(&self, pid: Pid) -> String {
        let lines =
            (0..self.scoreboard.lines()).filter_map(|number| self.scoreboard.line(number)?.read());
        let served =
            lines.filter(|reading| reading.busy && reading.pid == pid.as_raw_nonzero().get());
        served
            .map(|reading| format!("it was serving `{}`\n", escape::visible(&reading.request)))
            .collect()
    }
}
