//! One worker process: its threads wait for events, and accept, serve and close connections.
//!
//! Every thread waits on the same epoll set. The one that wakes up accepts, reads, runs the
//! application and writes. Nothing is handed from thread to thread, and an idle connection occupies
//! no thread.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use diagnostics::message::{Code, LogMessage};
use pyo3::prelude::*;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use wire::{
    connection_queue::ConnectionHistory,
    launch::{Launch, Service},
    running_clock,
};

use crate::{
    loading::{
        load_error::LoadError,
        staleness::modules::{self, ModuleWatch},
    },
    log::{self, Log, rate_limit},
    pool::{
        serving::{
            Sockets,
            connection_queue::{QueueThread, STOP_TIMEOUT},
            connections::Connections,
            event_loop::{Event, EventLoop},
            listeners::{Accepted, Listeners},
            requests::{Caller, Requests},
            worker_threads::WorkerThreads,
        },
        worker_limits::{LimitAction, WorkerLimits},
        worker_status::WorkerStatus,
    },
    process::forks::{self, Descriptor, Inventory},
    transport::{Connection, Progress, Stage},
};

/// How long a worker is idle after a request before it checks whether it can still be woken.
pub(crate) const IDLE_CHECK_TIME: Duration = Duration::from_secs(1);

/// Requests of a worker that is never idle between two such checks.
const REQUESTS_BETWEEN_CHECKS: u64 = 256;

/// How long a worker that stops waits for the requests of its connections at most, and for no more
/// than half of `--drain`.
const MAX_DRAIN_TIME: Duration = Duration::from_secs(5);

/// How long such a worker waits before it checks again which connections can be given away or
/// closed.
const DRAIN_CHECK_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// How long a web server has to close a connection after the last response before the worker waits
/// for that by epoll.
const CLOSE_TIME: Duration = Duration::from_millis(20);

/// Most connections of a thread that web servers are about to close.
const MAX_CLOSING: usize = 8;

/// Buffers of closed connections that a thread keeps.
const MAX_SPARE_BUFFERS: usize = 8;

/// One thread of a worker.
struct ServingThread<'a, 'py, C: Connection> {
    caller: Caller<'a, 'py>,
    /// Buffers of closed connections.
    buffers: Vec<C::Buffers>,
    /// Events that have come together with the current one. The last is the next.
    fetched: Vec<Event>,
    /// Connections that the web server is about to close after their last response.
    closing: Vec<(u64, C)>,
}

/// One worker process.
pub(super) struct Worker<C: Connection> {
    service: Service,
    events: Arc<EventLoop>,
    listeners: Listeners,
    settings: C::Settings,
    connections: Arc<Connections<C>>,
    /// Gives connections to other workers, if there may be any.
    queue: Option<Arc<QueueThread<C>>>,
    requests: Requests,
    limits: WorkerLimits,
    status: Arc<WorkerStatus>,
    threads: WorkerThreads,
    /// The modules of this process, if changes of them are of interest.
    modules: Option<ModuleWatch>,
    /// The descriptors that this process needs.
    inventory: Inventory,
    /// Connections cannot be accepted any more.
    has_failed: AtomicBool,
}

impl<C: Connection> Worker<C> {
    /// A worker that listens on `sockets`. With `failure` there is no application.
    pub(super) fn new(
        launch: &Launch,
        service: &Service,
        sockets: Sockets,
        status: Arc<WorkerStatus>,
        failure: Option<LoadError>,
        modules: Option<ModuleWatch>,
    ) -> std::io::Result<Self> {
        let Sockets { listeners, queue } = sockets;
        let events = Arc::new(EventLoop::new(listeners.len(), service.threads)?);
        let settings = C::settings(service, &listeners, queue.is_some());
        let listeners = Listeners::new(&events, listeners, launch)?;
        let connections = Arc::new(Connections::new(&events, service));
        let queue = queue
            .map(|queue| QueueThread::new(queue, &events, &connections, service.threads))
            .transpose()?;
        let needed = listeners.descriptors().chain(events.descriptors());
        let needed = needed.chain(queue.iter().flat_map(|queue| queue.descriptors()));
        Ok(Self {
            inventory: Inventory::of(needed),
            requests: Requests::new(launch, service, &status, failure),
            limits: WorkerLimits::new(service)?,
            threads: WorkerThreads::new(&status, service),
            service: service.clone(),
            events,
            listeners,
            settings,
            connections,
            queue,
            status,
            modules,
            has_failed: AtomicBool::new(false),
        })
    }

    /// Can connections not be accepted any more?
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// A log message if loading the application has left a timer running.
    pub(super) fn timer_after_loading(&self) -> Option<LogMessage> {
        self.requests.timer_after_loading()
    }

    /// Starts the threads that are missing, if it is time.
    pub(super) fn start_missing(self: &Arc<Self>, application: &Bound<'_, PyAny>) {
        if !self.threads.are_missing() || self.events.is_draining() {
            return;
        }
        let (worker, application_of_threads) =
            (self.clone(), Arc::new(application.clone().unbind()));
        self.threads.start_missing(application.py(), move |py, thread| {
            worker.run_thread(application_of_threads.bind(py), thread);
        });
    }

    /// Waits until all other threads have ended.
    pub(super) fn end_threads(&self, py: Python<'_>) {
        self.threads.end(py);
        self.queue.iter().for_each(|queue| queue.end());
    }

    /// Serves connections in this thread until the worker is asked to stop.
    pub(super) fn run_thread(self: &Arc<Self>, application: &Bound<'_, PyAny>, thread: u32) {
        let py = application.py();
        let caller = match Caller::new(application, thread, self.requests.setting()) {
            Ok(caller) => caller,
            Err(error) => return error.print(py),
        };
        let thread = &mut ServingThread {
            caller,
            buffers: Vec::new(),
            fetched: Vec::new(),
            closing: Vec::new(),
        };
        while !self.events.is_draining() {
            let next = match thread.fetched.pop() {
                Some(event) => Ok(Some(event)),
                None => {
                    let has_closing = !thread.closing.is_empty();
                    py.detach(|| self.next_event(&mut thread.fetched, has_closing))
                }
            };
            self.check_closing(thread, !matches!(next, Ok(Some(_))));
            self.start_missing(application);
            rate_limit::write_due_counts();
            self.connections.close_overdue();
            match next {
                // Another thread may have served the last request meanwhile.
                Ok(Some(event)) if event == Event::Stop || self.events.is_draining() => break,
                Ok(Some(event)) => self.on_event(thread, event),
                Ok(None) => self.on_idle(&thread.caller),
                Err(error) => {
                    self.give_up(&format!(
                        "the application has closed or replaced the epoll descriptor ({error})"
                    ));
                    break;
                }
            }
            if self.modules.as_ref().is_some_and(|modules| modules.look(py)) {
                self.events.stop();
            }
        }
        self.drain(thread);
    }

    /// The next event; nothing if it is time to check something.
    fn next_event(
        &self,
        fetched: &mut Vec<Event>,
        has_closing: bool,
    ) -> Result<Option<Event>, Errno> {
        let (connections, has_deadline) = self.connections.timeout();
        let timeout = [
            self.limits.left(),
            connections,
            has_closing.then_some(CLOSE_TIME),
            self.modules.as_ref().map(|_| modules::CHECK_INTERVAL),
            self.threads.timeout(),
            self.listeners.timeout(),
            self.requests.is_used().then_some(IDLE_CHECK_TIME),
        ];
        let timeout = timeout.into_iter().flatten().min();
        self.queue.iter().for_each(|queue| queue.note_idle());
        let next = self.events.wait(fetched, timeout, has_deadline);
        self.queue.iter().for_each(|queue| queue.note_busy(next.ok().flatten()));
        // A thread that is about to serve a request may be away for long, and others of this
        // process wait for connections.
        if self.listeners.listen_if_due(self.service.threads > 1).is_err() {
            self.events.stop();
        }
        next
    }

    fn on_event(&self, thread: &mut ServingThread<'_, '_, C>, event: Event) {
        match event {
            Event::Stop => self.events.stop(),
            Event::ReopenLogs => log::reopen_rotated(),
            Event::Queue => self.adopt(thread),
            Event::Listener(position) => self.accept(thread, position),
            Event::Connection(token) => {
                if let Some(connection) = self.connections.take(token) {
                    self.go_on(thread, token, connection, true);
                }
            }
        }
    }

    /// Checks what has to be checked now and then. A signal may have ended the wait, too.
    fn on_idle(&self, caller: &Caller<'_, '_>) {
        self.check_descriptors();
        self.connections.close_lingering();
        self.apply(caller.thread(), self.limits.now());
        // Handlers of the application run here, and what they raise is about the application.
        let (py, log) = (caller.py(), Log::new("-", "(worker)"));
        if let Err(error) = crate::wsgi::end_if_child(py, &log, py.check_signals()) {
            error.print(py);
        }
    }

    /// Checks, when the worker is idle after a request, whether the application has closed
    /// descriptors that wake this process: the kernel does not report that, and the worker would
    /// sleep for ever.
    fn check_descriptors(&self) {
        if !self.requests.take_idle() {
            return;
        }
        let lost = self.inventory.lost();
        if lost.is_empty() || forks::is_child() {
            return;
        }
        let numbers: Vec<_> = lost.iter().map(|number| format!("`{number}`")).collect();
        let numbers = numbers.join(", ");
        self.give_up(&format!(
            "the application has closed or replaced file descriptors of wsgate: {numbers}"
        ));
    }

    /// Does what follows from the worker's age, memory and requests.
    fn apply(&self, thread: u32, action: LimitAction) {
        match action {
            LimitAction::Continue => {}
            LimitAction::ReportMemory(resident) => self.status.report_memory(thread, resident),
            LimitAction::Exit(_) if self.events.is_draining() => {}
            LimitAction::Exit(reason) => {
                if self.requests.has_application() {
                    let sentence = format!("replacing worker {}: {reason}", std::process::id());
                    Log::new("-", "(worker)")
                        .write(&LogMessage::notice(Code::WorkerReplaced, sentence));
                }
                self.events.stop();
            }
        }
    }

    /// Stops the worker, to which web servers cannot connect any more, so that another replaces it.
    fn give_up(&self, reason: &str) {
        if !self.events.is_draining() && !self.has_failed.swap(true, Ordering::Relaxed) {
            let pid = std::process::id();
            let sentence = format!("worker {pid} cannot accept connections and exits: {reason}");
            let message = LogMessage::error(Code::CannotAccept, sentence).hint(
                "look for `os.closerange`, `os.dup2` and RLIMIT_NOFILE, and for files that are not \
                 closed",
            );
            Log::new("-", "(worker)").write(&message);
        }
        self.events.stop();
    }

    fn make_room(&self, py: Python<'_>) {
        if py.detach(|| self.connections.make_room()).is_err() {
            self.give_up("no file descriptor has been free for a second");
        }
    }

    /// Accepts a connection at the listener `position`, and serves what has arrived on it.
    fn accept(&self, thread: &mut ServingThread<'_, '_, C>, position: usize) {
        match self.listeners.accept(position) {
            Accepted::Connection(socket) => {
                self.connections.note_room();
                self.open(thread, socket, None);
            }
            Accepted::Nothing => self.connections.note_room(),
            Accepted::NoDescriptor => {
                self.check_closing(thread, true);
                self.make_room(thread.caller.py());
            }
            Accepted::Unusable(error) => self.give_up(&format!(
                "the application has closed, replaced or shut down the listening socket ({error})"
            )),
        }
    }

    /// Takes over a connection that another worker has put into the queue.
    fn adopt(&self, thread: &mut ServingThread<'_, '_, C>) {
        let Some(queue) = &self.queue else {
            return;
        };
        if !queue.has_descriptor() {
            return self.make_room(thread.caller.py());
        }
        match queue.take() {
            Ok(Some((socket, history))) => self.open(thread, socket, Some(history)),
            // The pool stops, and this worker is about to be asked to.
            Ok(None) => queue.forget(),
            // Most often another worker was faster.
            Err(Errno::AGAIN | Errno::INTR | Errno::MFILE | Errno::NFILE) => {}
            // The application has closed the queue. The kernel would report it for ever.
            Err(_) => self.events.stop(),
        }
    }

    fn open(
        &self,
        thread: &mut ServingThread<'_, '_, C>,
        socket: Descriptor,
        history: Option<ConnectionHistory>,
    ) {
        let connection = C::open(socket, &self.settings, history, thread.buffers.pop());
        self.go_on(thread, self.events.new_token(), connection, false);
    }

    /// Goes on with a connection until it waits for more, or is closed. One that `is_known` has
    /// waited before.
    fn go_on(
        &self,
        thread: &mut ServingThread<'_, '_, C>,
        token: u64,
        connection: C,
        is_known: bool,
    ) {
        let is_open = self.advance(thread, &connection);
        let stage = connection.stage();
        if is_open && !is_known && connection.awaits_close() {
            // Nearly always the web server has read the whole response and closes at once. To check
            // that with the next event takes less time than to wait for it by epoll.
            thread.closing.push((token, connection));
            if self.events.is_draining() {
                self.check_closing(thread, true);
            }
        } else if is_open && !self.connections.is_overdue(stage) {
            self.wait_for(token, connection, stage, is_known);
        } else {
            if is_known {
                self.events.forget(connection.socket());
            }
            close(thread, connection);
        }
    }

    fn wait_for(&self, token: u64, connection: C, stage: Stage, is_known: bool) {
        let is_new_keep_alive = !is_known && connection.is_keep_alive();
        self.connections.wait_for(token, connection, stage, is_known);
        if is_new_keep_alive && self.service.workers > 1 {
            self.listeners.stand_back();
        }
    }

    /// Serves the requests of a connection that have arrived. Tells whether more may arrive.
    fn advance(&self, thread: &mut ServingThread<'_, '_, C>, connection: &C) -> bool {
        loop {
            let request = match connection.advance() {
                Progress::Request(request) => request,
                Progress::Wait => return true,
                Progress::Close => return false,
            };
            let caller = &mut thread.caller;
            let served = self.requests.serve(caller, connection, &request, &self.settings);
            if self.events.is_draining() {
                self.status.mark_stopping(caller.thread());
            }
            // A worker that is never idle checks now and then.
            if forks::has_lost() || served.is_multiple_of(REQUESTS_BETWEEN_CHECKS) {
                self.check_descriptors();
            }
            self.apply(caller.thread(), self.limits.after(served));
            match connection.after_request(request) {
                Progress::Close => return false,
                // Between two requests, where the web server expects it (FastCGI 1.0, 3.5), if no
                // other worker can take over the connection.
                _ if self.events.is_draining()
                    && connection.can_close()
                    && !self.queue.as_ref().is_some_and(|queue| queue.is_open()) =>
                {
                    return false;
                }
                // The next request waits its turn, so that one busy connection does not keep others
                // from being served.
                _ if !connection.has_unread() => return true,
                _ => {}
            }
        }
    }

    /// Closes connections that the web server has closed, and waits for the others, if there are
    /// many or the thread `is_idle`.
    fn check_closing(&self, thread: &mut ServingThread<'_, '_, C>, is_idle: bool) {
        // Other threads could drain connections that this one holds while it serves a request.
        let max = if self.service.threads > 1 { 1 } else { MAX_CLOSING };
        if thread.closing.is_empty() || (thread.closing.len() < max && !is_idle) {
            return;
        }
        for (token, connection) in std::mem::take(&mut thread.closing) {
            if connection.is_drained() {
                close(thread, connection);
            } else {
                self.wait_for(token, connection, Stage::Lingering, false);
            }
        }
    }

    /// Finishes the requests of all connections, and gives away or closes those between two.
    fn drain(&self, thread: &mut ServingThread<'_, '_, C>) {
        self.events.stop();
        self.status.mark_stopping(thread.caller.thread());
        let py = thread.caller.py();
        // The kernel wakes one thread of one worker for a connection. If that was this one, it
        // wakes no other. A process that cannot wait for connections leaves them to the next one.
        if !self.has_failed() {
            for position in 0..self.listeners.len() {
                self.accept(thread, position);
            }
            self.adopt_all(thread);
        }
        self.check_closing(thread, true);
        let (begun, deadline) = (running_clock::instant(), Instant::now() + STOP_TIMEOUT);
        let limit = MAX_DRAIN_TIME.min(Duration::from_secs(self.service.drain_seconds.max(1)) / 2);
        let mut left = self.connections.take_all();
        while !left.is_empty() && running_clock::elapsed(begun) < limit {
            py.detach(|| self.queue.iter().for_each(|queue| queue.give_all(&mut left, deadline)));
            left.retain(|(_, connection)| !connection.can_close());
            let are_ready = py.detach(|| wait_for_any(&left));
            for ((token, connection), is_ready) in
                std::mem::take(&mut left).into_iter().zip(are_ready)
            {
                if is_ready {
                    self.go_on(thread, token, connection, true);
                } else {
                    left.push((token, connection));
                }
            }
            left.append(&mut self.connections.take_all());
        }
    }

    /// Takes over all connections of the queue when the pool stops: there may be no other worker.
    fn adopt_all(&self, thread: &mut ServingThread<'_, '_, C>) {
        let Some(queue) = self.queue.as_ref().filter(|queue| !queue.is_open()) else {
            return;
        };
        while let Ok(Some((socket, history))) = queue.take() {
            self.open(thread, socket, Some(history));
        }
    }
}

/// Closes a connection that is not waited for, and keeps its buffers.
fn close<C: Connection>(thread: &mut ServingThread<'_, '_, C>, connection: C) {
    if let Some(buffers) = connection.close()
        && thread.buffers.len() < MAX_SPARE_BUFFERS
    {
        thread.buffers.push(buffers);
    }
}

/// Waits a moment for the connections. Tells on which of them something has arrived.
fn wait_for_any<C: Connection>(connections: &[(u64, C)]) -> Vec<bool> {
    let sockets = connections.iter().map(|(_, connection)| connection.socket());
    let mut watched: Vec<_> =
        sockets.map(|it| PollFd::from_borrowed_fd(it, PollFlags::IN)).collect();
    let look = |_| poll(&mut watched, Some(&DRAIN_CHECK_INTERVAL)).unwrap_or(0);
    let found = running_clock::wait(Duration::try_from(DRAIN_CHECK_INTERVAL).ok(), look);
    watched.iter().map(|socket| found > 0 && !socket.revents().is_empty()).collect()
}
