//! What a pool does for clients while it has no worker and cannot have one: their requests are
//! answered with 503 at once, until code can be loaded again.

use std::time::{Duration, Instant};

use diagnostics::message::{Code, LogMessage};
use fastcgi_server::addresses::Addresses;
use rustix::{
    event::PollFd,
    io::{Errno, ioctl_fionbio},
    net::{SocketFlags, acceptfrom_with},
};
use wire::{connection_queue::ConnectionQueue, running_clock};

use crate::{
    config::settings::Settings,
    pool::{
        allowed_addresses,
        refuser::Refuser,
        supervisor::{Supervisor, phase::Phase},
    },
};

/// How long requests wait for another attempt to load code that could not be loaded.
const ATTEMPT_TIME_LIMIT: Duration = Duration::from_secs(5);

/// How long requests wait for code that is being loaded and has not failed: web servers do not wait
/// longer by default.
const LOAD_TIME_LIMIT: Duration = Duration::from_secs(60);

/// Failures in a row of a place whose workers end at their beginning, or cannot be forked, before
/// their requests are refused: the first pauses are short.
const MAX_FAILURES: u32 = 3;

/// Connections that are accepted before other things have their turn.
const MAX_ACCEPTS_A_TURN: usize = 64;

/// How long nothing is accepted after no descriptor was free.
const PAUSE: Duration = Duration::from_secs(1);

/// Who is refused, and why.
pub(super) struct Refusing {
    refuser: Refuser,
    /// Peers that may connect, if not all.
    allowed: Option<Addresses>,
    /// Code could not be loaded, and no other has been since.
    failed: bool,
    /// It failed a moment ago: whoever waits now is answered, whatever else is attempted.
    sweeps: bool,
    /// Since when another attempt is being made.
    attempt: Option<Instant>,
    /// When connections may be taken again, since no descriptor was free for one.
    pause_end: Option<Instant>,
}

impl Refusing {
    pub(super) fn new(settings: &Settings) -> Self {
        let allowed = allowed_addresses::list(settings);
        let allowed = allowed.map(|list| Addresses::parse(&list.to_string_lossy()).ok());
        Self {
            refuser: Refuser::default(),
            // A list that cannot be read lets nobody in; workers say so in the log.
            allowed: allowed
                .and_then(|allowed| allowed.or_else(|| Addresses::parse("0.0.0.0").ok())),
            failed: false,
            sweeps: false,
            attempt: None,
            pause_end: None,
        }
    }

    /// Code could not be loaded.
    pub(super) fn note_failure(&mut self) {
        (self.failed, self.sweeps) = (true, true);
    }

    /// Code was loaded.
    pub(super) fn note_success(&mut self) {
        (self.failed, self.sweeps) = (false, false);
    }

    /// What is waited for on connections that are being answered.
    pub(super) fn watched(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.refuser.watched()
    }

    /// When something is to be done that nobody tells of.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let limits = [ATTEMPT_TIME_LIMIT, LOAD_TIME_LIMIT];
        let attempt = self.attempt.into_iter().flat_map(|since| limits.map(|limit| since + limit));
        // What is due already waits for clients.
        let later = attempt.chain(self.pause_end).filter(|due| *due > running_clock::instant());
        self.refuser.next_due().into_iter().chain(later).min()
    }
}

impl Supervisor<'_> {
    /// Is nobody there who could serve a request, and is nobody to come soon?
    fn is_unable(&self) -> bool {
        let hangs = self
            .refusing
            .attempt
            .is_some_and(|since| running_clock::elapsed(since) >= LOAD_TIME_LIMIT);
        (hangs || self.has_failed()) && self.has_no_worker()
    }

    fn has_failed(&self) -> bool {
        self.refusing.failed || self.places.all.iter().any(|place| place.failures >= MAX_FAILURES)
    }

    fn has_no_worker(&self) -> bool {
        let may_load = self.phase.may_fork() || self.phase == Phase::Starting;
        may_load && !self.terms.service.warm && self.places.live().next().is_none()
    }

    /// Are connections to be taken in order to refuse their requests?
    pub(super) fn refuses(&self) -> bool {
        let is_over = |since: Instant| running_clock::elapsed(since) >= ATTEMPT_TIME_LIMIT;
        let has_time = self.refusing.sweeps || self.refusing.attempt.is_none_or(is_over);
        let is_pausing = self.refusing.pause_end.is_some_and(|end| running_clock::instant() < end);
        has_time && !is_pausing && self.refusing.refuser.has_room() && self.is_unable()
    }

    /// Refuses requests if nobody can serve them.
    pub(super) fn refuse_requests(&mut self) {
        let is_attempted = self.templates.next.is_some()
            || self.places.all.iter().any(|place| place.asked.is_some());
        let since = if is_attempted && self.has_no_worker() {
            Some(running_clock::instant())
        } else {
            None
        };
        self.refusing.attempt = since.map(|now| self.refusing.attempt.unwrap_or(now));
        if self.refuses() {
            self.take_connections();
        }
        let entry =
            if self.has_failed() {
                LogMessage::error(
                Code::NoWorkerServes,
                "the request is refused: the pool has no worker, and cannot load the application",
            )
            .hint("an entry above says why; the pool tries again when requests come, and after a \
                reload")
            } else {
                LogMessage::error(
                    Code::NoWorkerServes,
                    format!(
                        "the request is refused: the pool has no worker, and has been loading the \
                         application for more than {} s",
                        LOAD_TIME_LIMIT.as_secs()
                    ),
                )
                .hint(
                    "`wsgate check` names the line that loading waits in; with `--min 1` or more a \
                     worker always stays",
                )
            };
        for request in self.refusing.refuser.go_on(&entry, self.settings.debug) {
            self.log_about(&entry, &request);
        }
    }

    /// Takes the connections that wait, as many as there is room for.
    fn take_connections(&mut self) {
        let Refusing { refuser, allowed, sweeps, pause_end, .. } = &mut self.refusing;
        for listener in &self.listeners {
            // Workers have it so.
            let _ = ioctl_fionbio(&listener.socket, true);
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            for _ in 0..MAX_ACCEPTS_A_TURN {
                if !refuser.has_room() {
                    break;
                }
                let (socket, address) = match acceptfrom_with(&listener.socket, flags) {
                    Ok(accepted) => accepted,
                    // The application may have shut the socket down, and poll(2) tells so always.
                    Err(
                        Errno::MFILE
                        | Errno::NFILE
                        | Errno::NOBUFS
                        | Errno::NOMEM
                        | Errno::INVAL
                        | Errno::BADF
                        | Errno::NOTSOCK,
                    ) => {
                        *pause_end = Some(running_clock::instant() + PAUSE);
                        break;
                    }
                    // None waits, or the peer has left again.
                    Err(_) => break,
                };
                let address =
                    address.and_then(|address| std::net::SocketAddr::try_from(address).ok());
                let address = address.map(|address| address.ip());
                if allowed.as_ref().is_none_or(|allowed| allowed.allow(address)) {
                    refuser.take(socket);
                }
            }
        }
        // Those that workers have left.
        while refuser.has_room()
            && let Some(Ok(Some(given))) = self.handover.as_ref().map(ConnectionQueue::pop)
        {
            refuser.take(given.socket);
        }
        *sweeps &= !refuser.has_room();
    }
}
