//! Requests of a pool that has no worker and cannot start one: refused with 503 Service Unavailable
//! until code can be loaded again.

use std::time::{Duration, Instant};

use diagnostics::message::{Code, LogMessage};
use fastcgi_server::addresses::Addresses;
use rustix::{event::PollFd, io::Errno};
use wire::running_clock;

use crate::{
    config::settings::Settings,
    pool::{
        allowed_addresses,
        refuser::Refuser,
        supervisor::{action::Action, sockets::Sockets},
    },
};

/// How long requests wait for another attempt to load code that could not be loaded.
const RETRY_WAIT_LIMIT: Duration = Duration::from_secs(5);

/// How long requests wait for code that is being loaded and has not failed. Web servers do not wait
/// longer by default.
const LOAD_WAIT_LIMIT: Duration = Duration::from_secs(60);

/// Workers in a row that fail in one slot before requests are refused; the first pauses are short.
const MAX_FAILURES: u32 = 3;

/// Maximum number of connections that are accepted in one turn of the supervisor's loop.
const MAX_ACCEPTS_PER_TURN: usize = 64;

/// Pause before the next accept after file descriptors ran out, or a socket became unusable.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Requests that are refused, and why.
pub(super) struct Refusals {
    refuser: Refuser,
    /// Peers that may connect, unless all may.
    allowed: Option<Addresses>,
    /// Clients may see the reason.
    debug: bool,
    /// Code could not be loaded, and no attempt has succeeded since.
    has_failed: bool,
    /// Waiting requests are to be refused at once, even if another attempt is being made.
    refuses_waiting: bool,
    /// Since when an attempt is being made to load the code or start a worker.
    attempt_since: Option<Instant>,
    /// End of the pause in which nothing is accepted.
    pause_end: Option<Instant>,
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
        let list = allowed_addresses::list(settings);
        // An invalid list allows no peer; workers log that.
        let allowed = list.and_then(|list| {
            let parsed = Addresses::parse(&list.to_string_lossy());
            parsed.or_else(|_| Addresses::parse("0.0.0.0")).ok()
        });
        Self {
            refuser: Refuser::default(),
            allowed,
            debug: settings.debug,
            has_failed: false,
            refuses_waiting: false,
            attempt_since: None,
            pause_end: None,
        }
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
        let is_pausing = self.pause_end.is_some_and(|end| running_clock::instant() < end);
        is_unable && may_refuse && !is_pausing && self.refuser.has_room()
    }

    fn is_failing(&self, ability: Ability) -> bool {
        self.has_failed || ability.failures >= MAX_FAILURES
    }

    /// Accepts connections if no worker can serve them, and continues those that are being refused.
    pub(super) fn proceed(&mut self, ability: Ability, sockets: &Sockets) -> Vec<Action> {
        self.attempt_since = (ability.is_attempting && ability.lacks_worker)
            .then(|| self.attempt_since.unwrap_or_else(running_clock::instant));
        if self.is_accepting(ability) {
            self.accept(sockets);
        }
        let reason = self.reason(ability);
        let refused = self.refuser.proceed(&reason, self.debug).into_iter();
        refused.map(|request| Action::LogRequest(reason.clone(), Box::new(request))).collect()
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
    fn accept(&mut self, sockets: &Sockets) {
        for listener in sockets.listeners() {
            for _ in 0..MAX_ACCEPTS_PER_TURN {
                if !self.refuser.has_room() {
                    break;
                }
                let (socket, address) = match Sockets::accept(listener) {
                    Ok(accepted) => accepted,
                    // INVAL: the application may have shut the socket down, which poll(2) reports
                    // all the time.
                    Err(
                        Errno::MFILE
                        | Errno::NFILE
                        | Errno::NOBUFS
                        | Errno::NOMEM
                        | Errno::INVAL
                        | Errno::BADF
                        | Errno::NOTSOCK,
                    ) => {
                        self.pause_end = Some(running_clock::instant() + ACCEPT_PAUSE);
                        break;
                    }
                    // No connection waits, or the client has disconnected.
                    Err(_) => break,
                };
                let address =
                    address.and_then(|address| std::net::SocketAddr::try_from(address).ok());
                let address = address.map(|address| address.ip());
                if self.allowed.as_ref().is_none_or(|allowed| allowed.allow(address)) {
                    self.refuser.add(socket);
                }
            }
        }
        // Connections that workers have passed on before they exited.
        while self.refuser.has_room()
            && let Some(socket) = sockets.take_queued()
        {
            self.refuser.add(socket);
        }
        self.refuses_waiting &= !self.refuser.has_room();
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
        let later = attempt.chain(self.pause_end).filter(|due| *due > running_clock::instant());
        self.refuser.next_due().into_iter().chain(later).min()
    }
}
