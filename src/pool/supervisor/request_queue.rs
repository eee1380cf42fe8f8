//! Requests that wait for a worker, with a limit of their time and number: `--queue` and
//! `--queue-length`.
//!
//! While no thread is idle, the supervisor accepts connections and takes those that busy workers
//! pass on. Their requests wait here in the order of their arrival. The first of them, one for each
//! thread of the pool, are in the queue from which workers take connections, so that no worker
//! waits for the supervisor. A request that has waited too long is taken back and refused with 503
//! Service Unavailable. While a thread is idle, workers accept connections themselves.

use std::{
    collections::VecDeque,
    os::fd::{AsFd as _, OwnedFd},
    rc::Rc,
    time::{Duration, Instant},
};

use diagnostics::message::{Code, LogMessage};
use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
    net::{RecvFlags, recv},
    process::{Resource, getrlimit},
};
use wire::{
    connection_queue::{ConnectionHistory, ConnectionQueue, QueuedConnection},
    running_clock,
    scoreboard::{HistogramSum, Scoreboard, Wakeup},
};

use crate::{
    config::settings::Settings,
    pool::{
        queue_options::QueueLimits,
        refuser::Refuser,
        supervisor::{
            acceptor::Acceptor,
            action::Action,
            refusal_log::{QueueLimit, RefusalLog},
            sockets::Sockets,
        },
    },
};

/// How long no thread must have been idle before connections are accepted here. A busy pool mostly
/// has an idle thread again by then.
const SETTLE_TIME: Duration = Duration::from_millis(10);

/// Maximum number of connections that are refused at a time.
const MAX_REFUSED: usize = 128;

/// Requests that wait for a worker.
pub(in crate::pool) struct RequestQueue {
    limits: QueueLimits,
    /// Maximum number of requests that wait.
    max_waiting: usize,
    debug: bool,
    scoreboard: Rc<Scoreboard>,
    /// To and from workers.
    relay: ConnectionQueue,
    /// Requests that no worker can take yet, in the order of their arrival.
    waiting: VecDeque<WaitingRequest>,
    /// Connections without a request.
    silent: VecDeque<QueuedConnection>,
    /// The connections that workers can take, in the order in which they were passed on.
    passed_on: VecDeque<PassedOn>,
    /// How long the requests waited that workers have taken, where the web server does not tell.
    waits: HistogramSum,
    acceptor: Acceptor,
    refuser: Refuser,
    log: RefusalLog,
    /// The limit that the last refused request has reached.
    reached: QueueLimit,
    /// Since when no thread has been idle.
    busy_since: Option<Instant>,
    is_accepting: bool,
    is_closed: bool,
}

/// A connection with a request.
struct WaitingRequest {
    connection: QueuedConnection,
    since: Instant,
}

/// A connection that workers can take.
struct PassedOn {
    has_request: bool,
    since: Instant,
}

impl RequestQueue {
    /// An empty queue. `relay` is the supervisor's side of
    /// [`ConnectionQueue::create_relayed`].
    pub(in crate::pool) fn new(
        limits: QueueLimits,
        relay: ConnectionQueue,
        scoreboard: Rc<Scoreboard>,
        settings: &Settings,
    ) -> Self {
        // The supervisor needs file descriptors for other things, too.
        let descriptors = getrlimit(Resource::Nofile).current.map_or(u64::MAX, |limit| limit / 2);
        let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
        Self {
            limits,
            max_waiting: limits.length.min(descriptors),
            debug: settings.debug,
            scoreboard,
            relay,
            waiting: VecDeque::new(),
            silent: VecDeque::new(),
            passed_on: VecDeque::new(),
            waits: HistogramSum::default(),
            acceptor: Acceptor::new(settings),
            refuser: Refuser::new(MAX_REFUSED),
            log: RefusalLog::default(),
            reached: QueueLimit::Time,
            busy_since: None,
            is_accepting: false,
            is_closed: false,
        }
    }

    /// The supervisor's side, for the next program of an upgrade.
    pub(super) fn relay(&self) -> &ConnectionQueue {
        &self.relay
    }

    /// The connections that are held here.
    pub(super) fn held(&self) -> impl Iterator<Item = &QueuedConnection> {
        self.waiting.iter().map(|waiting| &waiting.connection).chain(&self.silent)
    }

    /// Takes over the connections of the previous program.
    pub(super) fn take_over(&mut self, held: Vec<QueuedConnection>) {
        held.into_iter().for_each(|connection| self.add(connection));
    }

    /// Is a request being refused?
    pub(super) fn is_refusing(&self) -> bool {
        !self.refuser.is_idle()
    }

    /// Changes the peers that may connect, and what clients may see.
    pub(super) fn set_settings(&mut self, settings: &Settings) {
        (self.acceptor, self.debug) = (Acceptor::new(settings), settings.debug);
    }

    /// Takes connections from workers and, while no thread is idle, from `sockets`. Passes them on
    /// to the workers, which have so many `threads`, and refuses requests above the limits.
    pub(super) fn proceed(&mut self, threads: usize, sockets: &Sockets) -> Vec<Action> {
        if !self.is_closed {
            self.receive();
            self.check_silent();
            if threads == 0 {
                self.hold_all(sockets);
            } else {
                let has_idle = self.check_idle();
                if self.is_accepting {
                    self.accept(sockets);
                }
                self.pass_on(threads, has_idle, sockets);
                self.refuse_overdue(sockets);
            }
        }
        let reason = self.reason();
        let refused = self.refuser.proceed(&reason, self.debug);
        let mut actions: Vec<Action> = Action::refusals(&refused).collect();
        actions.extend(self.log.actions(refused, &reason));
        actions
    }

    /// Number of requests that wait here since no worker can take them yet.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How long the requests waited here that workers have taken. Empty if workers learn the whole
    /// waiting time from the web server.
    pub(super) fn waits(&self) -> &HistogramSum {
        &self.waits
    }

    /// Takes out the first connection, for a pool without workers that cannot start one.
    pub(super) fn take(&mut self) -> Option<OwnedFd> {
        let first = self.waiting.pop_front().map(|first| first.connection);
        first.or_else(|| self.silent.pop_front()).map(|connection| connection.socket)
    }

    /// Passes all connections on to the workers of a pool that stops, and refuses the requests for
    /// which there is no room. The workers pass on no more connections.
    pub(super) fn close(&mut self) {
        self.receive();
        let waiting = self.waiting.drain(..).map(|waiting| waiting.connection);
        for connection in waiting.chain(self.silent.drain(..)) {
            if self.relay.push(connection.socket.as_fd(), connection.history).is_err()
                && has_input(&connection) == Ok(true)
            {
                self.refuser.add(connection.socket);
            }
        }
        self.relay.close();
        self.log.finish();
        (self.is_closed, self.is_accepting) = (true, false);
    }

    /// Takes the connections that workers have passed on.
    fn receive(&mut self) {
        while let Ok(Some(connection)) = self.relay.pop() {
            self.add(connection);
        }
    }

    fn add(&mut self, connection: QueuedConnection) {
        match has_input(&connection) {
            Ok(true) => {
                let since = running_clock::instant();
                self.waiting.push_back(WaitingRequest { connection, since });
            }
            Ok(false) => self.silent.push_back(connection),
            // The web server has closed the connection.
            Err(_) => {}
        }
    }

    /// Looks for requests on silent connections, and closes the connections above the limit that
    /// have been silent longest.
    fn check_silent(&mut self) {
        for connection in std::mem::take(&mut self.silent) {
            self.add(connection);
        }
        let surplus = self.silent.len().saturating_sub(self.max_waiting);
        self.silent.drain(..surplus);
    }

    /// Is a thread idle? Decides whether connections are accepted here, and asks workers to wake
    /// the supervisor when that may change.
    fn check_idle(&mut self) -> bool {
        let is_waiting = self.waiting() > 0;
        // A worker that begins a request may have taken it from the queue.
        let is_queued = is_waiting || self.passed_on.iter().any(|passed_on| passed_on.has_request);
        self.scoreboard.want_wakeup(if is_queued { Wakeup::Always } else { Wakeup::WhenBusy });
        let has_idle = self.scoreboard.has_idle();
        let now = running_clock::instant();
        self.busy_since = (!has_idle).then(|| self.busy_since.unwrap_or(now));
        if !has_idle && !is_queued {
            // The bell would ring with each request of a busy pool.
            self.scoreboard.want_wakeup(Wakeup::Never);
        }
        let has_settled = self.busy_since.is_some_and(|since| now >= since + SETTLE_TIME);
        let may_accept = self.refuser.has_room() && !self.acceptor.is_pausing();
        self.is_accepting = (has_settled || is_waiting) && may_accept;
        has_idle
    }

    fn accept(&mut self, sockets: &Sockets) {
        let mut accepted = Vec::new();
        self.acceptor.accept(sockets.listeners(), |socket| {
            accepted.push(socket);
            true
        });
        for socket in accepted {
            self.add(QueuedConnection { socket, history: ConnectionHistory::New });
        }
    }

    /// Passes on as many requests as there are threads; and the silent connections, if no request
    /// waits.
    fn pass_on(&mut self, threads: usize, has_idle: bool, sockets: &Sockets) {
        // Workers take connections in the order in which they were passed on.
        let taken = self.passed_on.len().saturating_sub(sockets.queued());
        let now = running_clock::instant();
        for taken in self.passed_on.drain(..taken) {
            if taken.has_request && !self.scoreboard.knows_waits() {
                self.waits.observe(now.saturating_duration_since(taken.since));
            }
        }
        while self.passed_on.len() < threads
            && let Some(first) = self.waiting.front()
            && self.relay.push(first.connection.socket.as_fd(), first.connection.history).is_ok()
        {
            let since = self.waiting.pop_front().map(|first| first.since);
            self.passed_on.extend(since.map(|since| PassedOn { has_request: true, since }));
        }
        while has_idle
            && self.waiting.is_empty()
            && let Some(first) = self.silent.front()
            && self.relay.push(first.socket.as_fd(), first.history).is_ok()
        {
            self.silent.pop_front();
            self.passed_on.push_back(PassedOn { has_request: false, since: now });
        }
    }

    /// Takes back what was passed on, because no worker is left. The time of all requests begins
    /// again, because other limits hold without a worker.
    fn hold_all(&mut self, sockets: &Sockets) {
        self.passed_on.clear();
        while let Some(connection) = sockets.take_queued() {
            self.add(connection);
        }
        let now = running_clock::instant();
        self.waiting.iter_mut().for_each(|waiting| waiting.since = now);
        (self.is_accepting, self.busy_since) = (false, None);
    }

    /// Refuses the requests that have waited too long, and the newest ones if too many wait.
    fn refuse_overdue(&mut self, sockets: &Sockets) {
        let now = running_clock::instant();
        let limit = self.limits.time;
        let is_overdue = |since: Instant| limit.is_some_and(|limit| now >= since + limit);
        while self.refuser.has_room() {
            if self.passed_on.front().is_some_and(|first| is_overdue(first.since)) {
                self.passed_on.pop_front();
                self.reached = QueueLimit::Time;
                match sockets.take_queued() {
                    Some(connection) if has_input(&connection) == Ok(true) => {
                        self.refuser.add(connection.socket);
                    }
                    Some(connection) => self.silent.push_back(connection),
                    // Workers have just taken all of them.
                    None => self.passed_on.clear(),
                }
            } else if self.waiting.front().is_some_and(|first| is_overdue(first.since)) {
                self.reached = QueueLimit::Time;
                let first = self.waiting.pop_front().map(|first| first.connection.socket);
                first.into_iter().for_each(|socket| self.refuser.add(socket));
            } else if self.waiting.len() + self.passed_on.len() > self.max_waiting
                && let Some(newest) = self.waiting.pop_back()
            {
                self.reached = QueueLimit::Length;
                self.refuser.add(newest.connection.socket);
            } else {
                break;
            }
        }
    }

    fn reason(&self) -> LogMessage {
        if self.is_closed {
            let sentence = "request refused: all workers are busy, and the pool stops";
            return LogMessage::new(Code::QueueFull, sentence).hint("try again");
        }
        self.reached.refusal(self.limits)
    }

    /// Sockets to poll.
    pub(super) fn watched<'a>(
        &'a self,
        sockets: &'a Sockets,
    ) -> impl Iterator<Item = PollFd<'a>> + 'a {
        let listeners = sockets.listeners().iter().filter(|_| self.is_accepting);
        let silent = self.silent.iter().map(|connection| connection.socket.as_fd());
        let input = [self.relay.pop_end()].into_iter().filter(|_| !self.is_closed);
        listeners
            .map(|listener| listener.socket.as_fd())
            .chain(silent)
            .chain(input)
            .map(|socket| PollFd::from_borrowed_fd(socket, PollFlags::IN))
            .chain(self.refuser.watched())
    }

    /// Time of the next check.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let now = running_clock::instant();
        let waiting = self.waiting.front().map(|first| first.since);
        let first =
            waiting.into_iter().chain(self.passed_on.front().map(|first| first.since)).min();
        let overdue = first.zip(self.limits.time).map(|(since, limit)| since + limit);
        let overdue = overdue.filter(|_| self.refuser.has_room());
        let settled = self.busy_since.map(|since| since + SETTLE_TIME).filter(|due| *due > now);
        let pause = self.acceptor.pause_end().filter(|due| *due > now);
        [overdue, settled, pause, self.refuser.next_due(), self.log.next_due()]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Has input arrived that nobody has read? Fails if the peer has closed the connection.
fn has_input(connection: &QueuedConnection) -> Result<bool, Errno> {
    match recv(&connection.socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((0, _)) => Err(Errno::PIPE),
        Ok(_) => Ok(true),
        Err(Errno::AGAIN | Errno::INTR) => Ok(false),
        Err(error) => Err(error),
    }
}
