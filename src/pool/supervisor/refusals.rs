//! Requests of a pool that has no worker and cannot start one: refused with 503 Service Unavailable
//! until code can be loaded again.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use diagnostics::message::{Code, LogMessage};
use rustix::event::PollFd;
use wire::running_clock;

use crate::{
    config::settings::Settings,
    pool::{
        refuser::Refuser,
        supervisor::{acceptor::Acceptor, action::Action, sockets::Sockets},
    },
};

/// How long requests wait for another attempt to load code that could not be loaded.
const RETRY_WAIT_LIMIT: Duration = Duration::from_secs(5);

/// How long requests wait for code that is being loaded and has not failed. Web servers do not wait
/// longer by default.
const LOAD_WAIT_LIMIT: Duration = Duration::from_secs(60);

/// Workers in a row that fail in one slot before requests are refused; the first pauses are short.
const MAX_FAILURES: u32 = 3;

/// Maximum number of connections that are refused at a time. Further ones wait in the accept queue.
const MAX_CONNECTIONS: usize = 32;

/// Requests that are refused, and why.
pub(super) struct Refusals {
    refuser: Refuser,
    acceptor: Acceptor,
    /// Clients may see the reason.
    debug: bool,
    /// Code could not be loaded, and no attempt has succeeded since.
    has_failed: bool,
    /// Waiting requests are to be refused at once, even if another attempt is being made.
    refuses_waiting: bool,
    /// Since when an attempt is being made to load the code or start a worker.
    attempt_since: Option<Instant>,
}

/// The ability of the pool to serve requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ability {
    /// The pool speaks FastCGI and could have workers, but has none.
    pub(super) lacks_worker: bool,
    /// Code is being loaded, or a worker was ordered.
    pub(super) is_attempting: bool,
    /// Failures in a row of the slot with the most of them.
    pub(super) failures: u32,
}

impl Refusals {
    /// No refusals yet.
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            refuser: Refuser::new(MAX_CONNECTIONS),
            acceptor: Acceptor::new(settings),
            debug: settings.debug,
            has_failed: false,
            refuses_waiting: false,
            attempt_since: None,
        }
    }

    /// Changes the peers that may connect, and what clients may see.
    pub(super) fn set_settings(&mut self, settings: &Settings) {
        (self.acceptor, self.debug) = (Acceptor::new(settings), settings.debug);
    }

    /// Records that code could not be loaded.
    pub(super) fn note_failure(&mut self) {
        (self.has_failed, self.refuses_waiting) = (true, true);
    }

    /// Records that code was loaded.
    pub(super) fn note_success(&mut self) {
        (self.has_failed, self.refuses_waiting) = (false, false);
    }

    /// Must connections be accepted to refuse their requests?
    pub(super) fn is_accepting(&self, ability: Ability) -> bool {
        let has_waited = |limit: Duration| {
            self.attempt_since.map(|since| running_clock::elapsed(since) >= limit)
        };
        let is_unable = ability.lacks_worker
            && (self.is_failing(ability) || has_waited(LOAD_WAIT_LIMIT) == Some(true));
        let may_refuse = self.refuses_waiting || has_waited(RETRY_WAIT_LIMIT) != Some(false);
        is_unable && may_refuse && !self.acceptor.is_pausing() && self.refuser.has_room()
    }

    fn is_failing(&self, ability: Ability) -> bool {
        self.has_failed || ability.failures >= MAX_FAILURES
    }

    /// Accepts connections if no worker can serve them, and continues those that are being refused.
    /// `take_waiting` takes out a connection that workers have passed on, or that waits for one.
    pub(super) fn proceed(
        &mut self,
        ability: Ability,
        sockets: &Sockets,
        take_waiting: impl FnMut() -> Option<OwnedFd>,
    ) -> Vec<Action> {
        self.attempt_since = (ability.is_attempting && ability.lacks_worker)
            .then(|| self.attempt_since.unwrap_or_else(running_clock::instant));
        if self.is_accepting(ability) {
            self.accept(sockets, take_waiting);
        }
        let reason = self.reason(ability);
        let refused = self.refuser.proceed(&reason, self.debug);
        let mut actions: Vec<Action> = Action::refusals(&refused).collect();
        let log = |request| Action::LogRequest(reason.clone(), Box::new(request));
        actions.extend(refused.into_iter().map(log));
        actions
    }

    fn reason(&self, ability: Ability) -> LogMessage {
        if self.is_failing(ability) {
            let sentence = if self.has_failed {
                "request refused: the pool has no worker, and cannot load the application"
            } else {
                "request refused: the pool has no worker: workers cannot be forked, or exit at \
                 their start"
            };
            return LogMessage::new(Code::NoWorkerServes, sentence).hint(
                "fix the cause, which an earlier message names; the pool tries again when requests \
                 come, and after a reload",
            );
        }
        LogMessage::new(
            Code::NoWorkerServes,
            format!(
                "request refused: the pool has no worker, and has been loading the application for \
                 more than {} s",
                LOAD_WAIT_LIMIT.as_secs()
            ),
        )
        .hint(
            "run `wsgate check` to see the line that is being executed; with `--min 1` or more, a \
             worker always stays",
        )
    }

    /// Accepts waiting connections, as many as there is room for.
    fn accept(&mut self, sockets: &Sockets, mut take_waiting: impl FnMut() -> Option<OwnedFd>) {
        let refuser = &mut self.refuser;
        self.acceptor.accept(sockets.listeners(), |socket| {
            refuser.add(socket);
            refuser.has_room()
        });
        while self.refuser.has_room()
            && let Some(socket) = take_waiting()
        {
            self.refuser.add(socket);
        }
        self.refuses_waiting &= !self.refuser.has_room();
    }

    /// Is a request being refused?
    pub(super) fn is_refusing(&self) -> bool {
        !self.refuser.is_idle()
    }

    /// Sockets to poll.
    pub(super) fn watched(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.refuser.watched()
    }

    /// Time of the next timeout.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let limits = [RETRY_WAIT_LIMIT, LOAD_WAIT_LIMIT];
        let attempt =
            self.attempt_since.into_iter().flat_map(|since| limits.map(|limit| since + limit));
        // After a limit that has passed, clients are waited for.
        let later =
            attempt.chain(self.acceptor.pause_end()).filter(|due| *due > running_clock::instant());
        self.refuser.next_due().into_iter().chain(later).min()
    }
}
